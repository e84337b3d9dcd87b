package dev.streamjob.bench;

import org.apache.flink.api.common.accumulators.LongCounter;
import org.apache.flink.api.common.accumulators.LongMaximum;
import org.apache.flink.api.common.accumulators.LongMinimum;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.state.api.OperatorIdentifier;
import org.apache.flink.state.api.SavepointReader;
import org.apache.flink.state.api.functions.KeyedStateReaderFunction;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;
import org.apache.flink.util.ParameterTool;

/**
 * Reads the state of a savepoint of {@link CountByKey} and leaves, as accumulators of the job, how many keys it has
 * ({@code keys}), the total of their counts ({@code rows}), how many sums are wrong ({@code wrongSums}), and extremes.
 */
public final class SumSavepoint {
    /** Argument: {@code --savepoint DIRECTORY}. */
    public static void main(String[] arguments) throws Exception {
        ParameterTool parameters = ParameterTool.fromArgs(arguments);
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment.setParallelism(1);
        SavepointReader.read(environment, parameters.get("savepoint"), new HashMapStateBackend())
                .readKeyedState(OperatorIdentifier.forUid(CountByKey.COUNT_UID), new Totals(), Types.LONG, Types.LONG)
                .sinkTo(new DiscardingSink<>());
        environment.execute("sum-savepoint");
    }

    private static final class Totals extends KeyedStateReaderFunction<Long, Long> {
        private static final long serialVersionUID = 1;
        private final LongCounter keys = new LongCounter();
        private final LongCounter rows = new LongCounter();
        private final LongCounter wrongSums = new LongCounter();
        private final LongMinimum minCount = new LongMinimum();
        private final LongMaximum maxCount = new LongMaximum();
        private final LongMaximum maxKey = new LongMaximum();
        private transient ValueState<Tuple2<Long, Long>> state;

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(CountByKey.stateDescriptor());
            getRuntimeContext().addAccumulator("keys", keys);
            getRuntimeContext().addAccumulator("rows", rows);
            getRuntimeContext().addAccumulator("wrongSums", wrongSums);
            getRuntimeContext().addAccumulator("minCount", minCount);
            getRuntimeContext().addAccumulator("maxCount", maxCount);
            getRuntimeContext().addAccumulator("maxKey", maxKey);
        }

        @Override
        public void readKey(Long key, Context context, Collector<Long> out) throws Exception {
            Tuple2<Long, Long> value = state.value();
            keys.add(1);
            rows.add(value.f0);
            // The number of keys is a multiple of that of the values, so all values of a key are the same.
            wrongSums.add(value.f1 == value.f0 * (key % CountByKey.VALUES) ? 0 : 1);
            minCount.add(value.f0);
            maxCount.add(value.f0);
            maxKey.add(key);
        }
    }

    private SumSavepoint() {}
}
