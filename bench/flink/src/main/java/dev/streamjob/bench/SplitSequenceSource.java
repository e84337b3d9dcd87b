package dev.streamjob.bench;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.api.connector.source.lib.NumberSequenceSource.NumberSequenceSplit;
import org.apache.flink.api.connector.source.lib.util.IteratorSourceEnumerator;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiterStrategy;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;

/**
 * Rows (n mod keys, n mod 1000) without end, at a rate over all subtasks.
 *
 * <p>The numbers are cut into more splits than there will ever be subtasks (the stock source makes as many as it starts
 * with), so that subtasks added by rescaling have something to read. Every split begins with key 0 and value 0.
 */
final class SplitSequenceSource extends DataGeneratorSource<Tuple2<Long, Long>> {
    private static final long serialVersionUID = 1;
    private static final int SPLITS = 8;

    private final long splitLength;

    SplitSequenceSource(long keys, double rate) {
        super(
                number -> Tuple2.of(number % keys, number % CountByKey.VALUES),
                Long.MAX_VALUE,
                RateLimiterStrategy.perSecond(rate),
                CountByKey.COUNT_AND_SUM);
        long period = keys * CountByKey.VALUES;
        splitLength = Long.MAX_VALUE / SPLITS / period * period;
    }

    @Override
    public SplitEnumerator<NumberSequenceSplit, Collection<NumberSequenceSplit>> createEnumerator(
            SplitEnumeratorContext<NumberSequenceSplit> context) {
        List<NumberSequenceSplit> splits = new ArrayList<>();
        for (int split = 0; split < SPLITS; split++) {
            splits.add(new NumberSequenceSplit(
                    Integer.toString(split), split * splitLength, (split + 1) * splitLength - 1));
        }
        return new IteratorSourceEnumerator<>(context, splits);
    }
}
