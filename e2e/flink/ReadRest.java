import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.apache.flink.runtime.rest.handler.async.AsynchronousOperationInfo;
import org.apache.flink.runtime.rest.handler.async.AsynchronousOperationResult;
import org.apache.flink.runtime.rest.messages.checkpoints.CheckpointInfo;
import org.apache.flink.runtime.rest.messages.job.savepoints.SavepointInfo;
import org.apache.flink.runtime.rest.util.RestMapperUtils;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JavaType;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * Reads answers of a REST API with the classes that Flink's own clients use, strictly: a field that is unknown, missing or
 * of another type is an error, and what Flink would write for the same object must be what was read.
 *
 * <p>Arguments: base address, then pairs of a path and a class. Prints a line for every answer that does not fit; exits
 * with 1 if there is any. A class with {@code <} is an operation's result.
 */
public final class ReadRest {
    private static final ObjectMapper MAPPER = RestMapperUtils.getStrictObjectMapper();
    private static final String MESSAGES = "org.apache.flink.runtime.";

    public static void main(String[] arguments) throws Exception {
        HttpClient http = HttpClient.newHttpClient();
        int bad = 0;
        for (int at = 1; at + 1 < arguments.length; at += 2) {
            String path = arguments[at];
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + path)).build();
            HttpResponse<String> answer = http.send(request, HttpResponse.BodyHandlers.ofString());
            List<String> problems = new ArrayList<>();
            if (answer.statusCode() != 200) {
                problems.add("status " + answer.statusCode());
            } else {
                try {
                    Object read = MAPPER.readValue(answer.body(), type(arguments[at + 1]));
                    compare("", MAPPER.readTree(answer.body()), MAPPER.readTree(MAPPER.writeValueAsString(read)), problems);
                } catch (Exception error) {
                    problems.add(error.toString());
                }
            }
            if (!problems.isEmpty()) {
                bad++;
                System.out.println(path + " as " + arguments[at + 1] + ": " + problems + "\n  " + answer.body());
            }
        }
        System.out.println((arguments.length - 1) / 2 + " answers read, " + bad + " do not fit");
        System.exit(bad == 0 ? 0 : 1);
    }

    private static JavaType type(String name) throws Exception {
        switch (name) {
            case "savepoint":
                return MAPPER.getTypeFactory().constructParametricType(AsynchronousOperationResult.class, SavepointInfo.class);
            case "checkpoint":
                return MAPPER.getTypeFactory().constructParametricType(AsynchronousOperationResult.class, CheckpointInfo.class);
            case "operation":
                return MAPPER.getTypeFactory().constructParametricType(AsynchronousOperationResult.class, AsynchronousOperationInfo.class);
            default:
                return MAPPER.getTypeFactory().constructType(Class.forName(MESSAGES + name));
        }
    }

    private static void compare(String path, JsonNode ours, JsonNode theirs, List<String> problems) {
        if (ours == null || theirs == null) {
            // Nothing and null mean the same.
            JsonNode other = ours == null ? theirs : ours;
            if (other != null && !other.isNull()) {
                problems.add(path + (ours == null ? " is missing" : " is unknown") + ": " + other);
            }
            return;
        }
        if (ours.isObject() && theirs.isObject()) {
            for (Iterator<String> names = theirs.fieldNames(); names.hasNext(); ) {
                String name = names.next();
                // One object has many serialised forms; that it could be read is what matters.
                if (!name.equals("serialized-throwable")) {
                    compare(path + "." + name, ours.get(name), theirs.get(name), problems);
                }
            }
            for (Iterator<String> names = ours.fieldNames(); names.hasNext(); ) {
                String name = names.next();
                if (!theirs.has(name)) {
                    compare(path + "." + name, ours.get(name), null, problems);
                }
            }
        } else if (ours.isArray() && theirs.isArray() && ours.size() == theirs.size()) {
            for (int index = 0; index < ours.size(); index++) {
                compare(path + "[" + index + "]", ours.get(index), theirs.get(index), problems);
            }
        } else if (ours.isNumber() && theirs.isNumber()) {
            if (ours.doubleValue() != theirs.doubleValue()) {
                problems.add(path + " is " + ours + ", not " + theirs);
            }
        } else if (!ours.equals(theirs)) {
            problems.add(path + " is " + ours + ", not " + theirs);
        }
    }
}
