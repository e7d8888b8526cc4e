//! An explanation for a terminal.

use std::fmt::{self, Display, Formatter};

use super::human::{duration, size};
use super::{
    ExplainedColumn, ExplainedDelay, ExplainedSink, ExplainedSource, ExplainedStep, ExplainedWindow,
    Explanation,
};
use crate::state::window_state::most_tables;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let workers = if self.parallelism == 1 { "worker" } else { "workers" };
        writeln!(f, "pipeline {}: {} {workers}", self.pipeline, self.parallelism)?;
        for source in &self.sources {
            source.write(f)?;
        }
        for step in &self.steps {
            step.write(f)?;
        }
        for sink in &self.sinks {
            sink.write(f)?;
        }
        if !self.left_out.is_empty() {
            writeln!(f, "\nleft out, and counted")?;
        }
        for loss in &self.left_out {
            let goes_to = loss.goes_to.map_or(String::new(), |goes_to| format!(" → {goes_to}"));
            writeln!(f, "  {}: {}{goes_to}", loss.at, loss.what)?;
        }
        writeln!(f)?;
        if let Some(topic) = &self.dead_letter {
            writeln!(f, "dead letters → topic {topic}")?;
        }
        let checkpoint = &self.checkpoint;
        let every = duration(checkpoint.interval_ms as i64);
        writeln!(f, "checkpoint every {every}, {} kept in {}", checkpoint.retained, checkpoint.storage)?;
        match &self.state {
            None => writeln!(f, "state: none"),
            Some(state) => {
                let memory = size(state.memory_bytes);
                writeln!(f, "state: {memory} of memory, beyond that {} in {}", state.backend, state.dir)
            }
        }
    }
}

/// A line under a heading.
fn line(f: &mut Formatter<'_>, label: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "  {label:<11} {text}")
}

/// A line for each column, the label before the first.
fn lines(f: &mut Formatter<'_>, label: &str, columns: &[ExplainedColumn]) -> fmt::Result {
    for (i, column) in columns.iter().enumerate() {
        line(f, if i == 0 { label } else { "" }, column)?;
    }
    Ok(())
}

impl Display for ExplainedColumn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.sql_type)?;
        if let Some(path) = &self.path {
            write!(f, " at {path}")?;
        }
        if let Some(sql) = self.sql.as_ref().filter(|sql| **sql != self.name) {
            write!(f, " = {sql}")?;
        }
        match &self.keeps {
            Some(keeps) => write!(f, ", keeps {keeps}"),
            None => Ok(()),
        }
    }
}

impl ExplainedSource {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nsource {} ← {}", self.name, self.topics.join(", "))?;
        if let Some(servers) = &self.bootstrap_servers {
            line(f, "cluster", servers)?;
        }
        line(
            f,
            "format",
            format!(
                "{}, undeclared members: {}, null values: {}",
                self.format, self.unknown_fields, self.tombstones
            ),
        )?;
        line(f, "start", &self.start)?;
        lines(f, "reads", &self.reads)?;
        line(f, "event time", &self.event_time)?;
        let mut watermark = match self.watermark {
            ExplainedDelay::Fixed { delay_ms } => format!("{} behind", duration(delay_ms)),
            ExplainedDelay::Percentile { percentile, min_ms, max_ms } => format!(
                "as far behind as {percentile} % of the records are out of order, from {} to {}",
                duration(min_ms),
                duration(max_ms)
            ),
        };
        if let Some(ms) = self.idle_after_ms {
            watermark += &format!(", idle after {}", duration(ms as i64));
        }
        if let Some(ms) = self.max_drift_ms {
            watermark += &format!(", waits when {} ahead", duration(ms as i64));
        }
        line(f, "watermark", watermark)?;
        line(f, "on error", self.on_error)
    }
}

impl ExplainedStep {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nstep {} ← {}", self.name, self.from.join(", "))?;
        if let Some(filter) = &self.filter {
            line(f, "where", filter)?;
        }
        lines(f, "select", self.select.as_deref().unwrap_or_default())?;
        if let Some(column) = &self.unnest {
            line(f, "unnest", format!("a row for each element of {column}"))?;
        }
        match &self.window {
            Some(window) => window.write(f)?,
            None if self.select.is_none() => lines(f, "rows", &self.rows)?,
            None => {}
        }
        Ok(())
    }
}

impl ExplainedWindow {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (size, every) = (duration(self.size_ms), duration(self.every_ms));
        let panes = self.size_ms / self.every_ms;
        let shape = match self.kind {
            "tumbling" => format!("tumbling {size}"),
            "session" => format!("sessions with gaps of {size} at most"),
            kind => format!("{kind} {size} every {every}"),
        };
        let shape = match self.offset_ms {
            0 => shape,
            offset => format!("{shape}, shifted by {}", duration(offset)),
        };
        let fires = match (self.emit, self.early_ms) {
            (_, Some(early)) => {
                format!(", fires every {}, at its end and whenever it has changed since", duration(early))
            }
            ("updates", None) => ", fires at its end and whenever it has changed since".to_owned(),
            _ => String::new(),
        };
        let lateness = duration(self.allowed_lateness_ms);
        match self.kind {
            "deduplicate" => line(
                f,
                "duplicates",
                format!(
                    "one row of a key goes on of those within {size}, up to {lateness} behind the watermark"
                ),
            )?,
            "none" => line(
                f,
                "totals",
                format!("that go on, of groups that are forgotten after {size} without a row"),
            )?,
            _ => line(f, "window", format!("{shape}{fires}, closes {lateness} after its end"))?,
        }
        lines(f, if self.kind == "deduplicate" { "key" } else { "group by" }, &self.group_by)?;
        lines(f, "aggregate", &self.aggregate)?;
        if let Some(having) = &self.having {
            line(f, "having", having)?;
        }
        line(f, "late rows", self.late)?;
        let kept = duration(self.pane_kept_ms);
        let texts = match self.group_texts.as_slice() {
            [] => String::new(),
            texts => format!(" and the text of {}", texts.join(", ")),
        };
        let rows = match self.kind {
            "deduplicate" => "the time of each row that went on".to_owned(),
            _ => format!("a row for each group and pane of {every}"),
        };
        line(f, "state", format!("{rows}, for {kept} of event time"))?;
        line(f, "", format!("in memory {} bytes{texts}, and up to as much again to grow", self.group_bytes))?;
        match panes {
            _ if self.kind == "deduplicate" => {
                line(f, "", "rows wait for the next checkpoint, with their records".to_owned())
            }
            _ if matches!(self.kind, "session" | "none") => {
                line(f, "", "while a group goes on, its row moves to later panes".to_owned())
            }
            1 => Ok(()),
            panes => match most_tables(panes) {
                tables if tables < panes => line(
                    f,
                    "",
                    format!(
                        "a result adds up to {panes} of these rows, or {tables} sums of them where keys recur"
                    ),
                ),
                _ => line(f, "", format!("a result adds up to {panes} of these rows")),
            },
        }
    }
}

impl ExplainedSink {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nsink {} ← {} → topic {}", self.name, self.from, self.topics.join(", "))?;
        if let Some(column) = &self.topic_from {
            line(f, "topic from", column)?;
        }
        if let Some(filter) = &self.filter {
            line(f, "where", filter)?;
        }
        line(f, "key", &self.key)?;
        line(f, "headers", &self.headers)?;
        line(f, "format", self.format)?;
        lines(f, "rows", &self.rows)
    }
}
