package dev.streamjob.bench;

import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;
import org.apache.flink.util.ParameterTool;

/**
 * Counts rows and sums values by key: row n has key n mod {@code keys} and value n mod 1000, so after {@code keys} rows every
 * key has state, and what a savepoint has to hold follows from the number of rows alone.
 *
 * <p>One state of two longs a key, which is what suits the heap backend best. Results are discarded. Times nothing itself.
 */
public final class CountByKey {
    static final String COUNT_UID = "count-by-key";
    static final long VALUES = 1000;

    static final TypeInformation<Tuple2<Long, Long>> COUNT_AND_SUM = Types.TUPLE(Types.LONG, Types.LONG);

    static ValueStateDescriptor<Tuple2<Long, Long>> stateDescriptor() {
        return new ValueStateDescriptor<>("count-and-sum", COUNT_AND_SUM);
    }

    /** Arguments: {@code --keys N --rate ROWS_PER_SECOND --parallelism P}. */
    public static void main(String[] arguments) throws Exception {
        ParameterTool parameters = ParameterTool.fromArgs(arguments);
        long keys = parameters.getLong("keys");
        double rate = parameters.getDouble("rate");

        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment.setParallelism(parameters.getInt("parallelism"));
        environment.setMaxParallelism(128);
        environment.getConfig().enableObjectReuse();
        // Far away: the only checkpoints are those that the benchmark asks for.
        environment.enableCheckpointing(Duration.ofHours(12).toMillis());

        environment
                .fromSource(new SplitSequenceSource(keys, rate), WatermarkStrategy.noWatermarks(), "rows")
                .uid("rows")
                .keyBy(row -> row.f0, Types.LONG)
                .process(new Count())
                .uid(COUNT_UID)
                .name(COUNT_UID)
                .returns(Types.TUPLE(Types.LONG, Types.LONG, Types.LONG))
                .sinkTo(new DiscardingSink<>())
                .name("discard")
                .uid("discard");
        environment.execute("count-by-key");
    }

    private static final class Count
            extends KeyedProcessFunction<Long, Tuple2<Long, Long>, Tuple3<Long, Long, Long>> {
        private static final long serialVersionUID = 1;
        private transient ValueState<Tuple2<Long, Long>> state;

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(stateDescriptor());
        }

        @Override
        public void processElement(
                Tuple2<Long, Long> row,
                Context context,
                Collector<Tuple3<Long, Long, Long>> out)
                throws Exception {
            Tuple2<Long, Long> before = state.value();
            Tuple2<Long, Long> now = before == null ? Tuple2.of(1L, row.f1) : Tuple2.of(before.f0 + 1, before.f1 + row.f1);
            state.update(now);
            out.collect(Tuple3.of(row.f0, now.f0, now.f1));
        }
    }

    private CountByKey() {}
}
