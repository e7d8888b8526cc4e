//! Durations and sizes as people write them in a pipeline file.

/// Milliseconds in the longest unit that divides them.
pub fn duration(ms: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    match units.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// Bytes in the largest binary unit that divides them.
pub fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes != 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unit_that_divides() {
        assert_eq!([0, 1, 90_000, 60_000, 86_400_000].map(duration), ["0s", "1ms", "90s", "1m", "1d"]);
        assert_eq!([0, 1000, 1 << 20, 3 << 30].map(size), ["0B", "1000B", "1MiB", "3GiB"]);
    }
}
