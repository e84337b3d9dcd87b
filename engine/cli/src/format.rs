//! Numbers for people.

const KIB: f64 = 1024.0;

/// `950`, `12.3 k`, `4.56 M`.
pub fn count(number: f64) -> String {
    let (value, unit) = match number {
        n if n >= 999_500_000.0 => (n / 1e9, " G"),
        n if n >= 999_500.0 => (n / 1e6, " M"),
        n if n >= 9_999.5 => (n / 1e3, " k"),
        n => return format!("{n:.0}"),
    };
    format!("{}{unit}", three_digits(value))
}

/// `1 task`, `2 tasks`.
pub fn number_of(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// `512 B`, `1.50 MiB`.
pub fn bytes(number: u64) -> String {
    let mut value = number as f64;
    if value < KIB {
        return format!("{number} B");
    }
    for unit in ["KiB", "MiB", "GiB", "TiB"] {
        value /= KIB;
        if value < 999.5 {
            return format!("{} {unit}", three_digits(value));
        }
    }
    format!("{value:.0} TiB")
}

/// `35 ms`, `1.50 s`, `3 min 20 s`, `5 h 1 min`, `2 d 3 h`.
pub fn duration_ms(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        _ if millis < 1000 => format!("{millis} ms"),
        0..60 => format!("{} s", three_digits(millis as f64 / 1000.0)),
        60..3_600 => two(seconds, 60, "min", "s", 1),
        3_600..86_400 => two(seconds, 3_600, "h", "min", 60),
        _ => two(seconds, 86_400, "d", "h", 3_600),
    }
}

fn two(seconds: u64, large: u64, large_name: &str, small_name: &str, small: u64) -> String {
    format!("{} {large_name} {} {small_name}", seconds / large, seconds % large / small)
}

fn three_digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `2024-05-01 12:00:00 UTC`.
pub fn time(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(chrono::DateTime::from_timestamp_millis)
        .map_or_else(|| format!("{unix_ms} ms"), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let table = [
            (0.0, "0"),
            (999.4, "999"),
            (9_999.0, "9999"),
            (10_000.0, "10.0 k"),
            (123_456.0, "123 k"),
            (1_234_567.0, "1.23 M"),
            (99_960_000.0, "100 M"),
            (2_000_000_000.0, "2.00 G"),
        ];
        for (number, expected) in table {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn plurals() {
        assert_eq!([0, 1, 2].map(|number| number_of(number, "task")), ["0 tasks", "1 task", "2 tasks"]);
    }

    #[test]
    fn sizes() {
        for (number, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1_572_864, "1.50 MiB"), (5 << 40, "5.00 TiB")]
        {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn durations() {
        let table = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_500, "1.50 s"),
            (59_900, "59.9 s"),
            (200_000, "3 min 20 s"),
            (18_061_000, "5 h 1 min"),
            (183_600_000, "2 d 3 h"),
        ];
        for (millis, expected) in table {
            assert_eq!(duration_ms(millis), expected);
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(1_714_564_800_000), "2024-05-01 12:00:00 UTC");
    }
}
