//! `micro-report NOW [BEFORE]`: the figures that criterion left in a directory, nanoseconds per record, as a table in Markdown; with a second
//! directory, that of an earlier version measured in the same run, also what they are of those.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

fn main() -> Result<()> {
    let directories: Vec<String> = std::env::args().skip(1).collect();
    let (now, before) = match directories.as_slice() {
        [now] => (now, None),
        [now, before] => (now, Some(before)),
        _ => bail!("usage: micro-report NOW [BEFORE]"),
    };
    let now = figures(Path::new(now))?;
    let before = before.map(|before| figures(Path::new(before))).transpose()?;
    print!("{}", table(&now, before.as_ref()));
    Ok(())
}

/// Nanoseconds per record (row) by benchmark.
type Figures = BTreeMap<String, f64>;

/// All benchmarks below a directory: each has a folder `new` with what was measured last.
fn figures(directory: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|name| name == "new") {
            let (name, ns) = figure(&path)?;
            figures.insert(name, ns);
        } else {
            figures.extend(self::figures(&path)?);
        }
    }
    Ok(figures)
}

fn figure(directory: &Path) -> Result<(String, f64)> {
    let read = |name: &str| -> Result<Value> {
        let path = directory.join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    };
    let (benchmark, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let name = benchmark["full_id"].as_str().context("a benchmark without a name")?;
    let rows = benchmark["throughput"]["Elements"].as_f64().with_context(|| format!("rows of {name}"))?;
    let ns = estimates["median"]["point_estimate"].as_f64().with_context(|| format!("median of {name}"))?;
    Ok((name.to_owned(), ns / rows))
}

fn table(now: &Figures, before: Option<&Figures>) -> String {
    let head = match before {
        None => "| | ns per record |\n| --- | ---: |\n".to_owned(),
        Some(_) => "| | ns per record | before | ratio |\n| --- | ---: | ---: | ---: |\n".to_owned(),
    };
    let line = |(name, ns): (&String, &f64)| match before {
        None => format!("| {name} | {ns:.1} |\n"),
        Some(before) => match before.get(name) {
            Some(then) => format!("| {name} | {ns:.1} | {then:.1} | {:.2} |\n", ns / then),
            None => format!("| {name} | {ns:.1} | – | – |\n"),
        },
    };
    head + &now.iter().map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_record_and_compared_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let of = directory.path().join("decode/4-of-7/new");
        fs::create_dir_all(&of).unwrap();
        fs::write(of.join("benchmark.json"), r#"{"full_id":"decode/4-of-7","throughput":{"Elements":4096}}"#)
            .unwrap();
        fs::write(of.join("estimates.json"), r#"{"median":{"point_estimate":819200.0}}"#).unwrap();
        let now = figures(directory.path()).unwrap();
        assert_eq!(now, Figures::from([("decode/4-of-7".to_owned(), 200.0)]));
        let before = Figures::from([("decode/4-of-7".to_owned(), 400.0), ("gone".to_owned(), 1.0)]);
        assert!(table(&now, Some(&before)).ends_with("| decode/4-of-7 | 200.0 | 400.0 | 0.50 |\n"));
        assert!(table(&now, None).ends_with("| decode/4-of-7 | 200.0 |\n"));
    }
}
