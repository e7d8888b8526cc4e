//! `onceflow why`: what open windows wait for.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;

use super::client::{DaemonArgs, pipeline_name};
use super::exit::ended;
use super::status::Format;
use super::table::{instant, lasting};
use crate::http::model::Reasons;
use crate::pipeline::{Why, wall_clock_ms};

/// Show what the open windows of a running pipeline wait for
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow why orders-per-user")]
pub struct WhyArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    daemon: DaemonArgs,
}

impl WhyArgs {
    /// Asks, and prints the answer.
    pub fn run(&self) -> ExitCode {
        ended(self.show().map(|()| ExitCode::SUCCESS))
    }

    fn show(&self) -> anyhow::Result<()> {
        let reasons: Reasons = self.daemon.client()?.get(&format!("/pipelines/{}/why", self.pipeline))?;
        match self.format {
            Format::Json => println!("{}", serde_json::to_string_pretty(&reasons)?),
            Format::Text if reasons.steps.is_empty() => {
                println!("{} has no windows, or has not come to a checkpoint yet", self.pipeline);
            }
            Format::Text => reasons.steps.iter().for_each(|why| print!("{}", told(why, wall_clock_ms()))),
        }
        Ok(())
    }
}

/// A paragraph about a step.
fn told(why: &Why, now_ms: i64) -> String {
    let mut text = format!("{}: ", why.step);
    let (Some(end), Some(at)) = (why.next_end_ms, why.fires_at_ms) else {
        return text + "no window is open\n";
    };
    let mut line = |sentence: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{sentence}");
    };
    line(format!("the window that ends {} fires when the watermark reaches {}", instant(end), instant(at)));
    let stands =
        why.watermark_ms.map_or("is not known yet".to_owned(), |now| format!("is at {}", instant(now)));
    let held = match (&why.held_by, &why.follows) {
        (Some(by), _) if by.watermark_ms.is_none() => {
            format!("{}-{} has had no record yet, and is not idle", by.topic, by.partition)
        }
        (Some(by), _) => {
            let since = by.watermark_since_ms.map_or(String::new(), |since| {
                format!(", which has stood there for {}", lasting((now_ms - since).max(0)))
            });
            let lag = by.lag_records.map_or(String::new(), |lag| format!(" and has {lag} records to read"));
            format!("held by {}-{}{since}{lag}", by.topic, by.partition)
        }
        (None, Some(step)) => format!("it follows the windows of {step} that are closed"),
        (None, None) => "all partitions are idle, so that time stands until a record comes".to_owned(),
    };
    line(format!("  it {stands}: {held}"));
    if let Some(now) = why.watermark_ms.filter(|now| *now < at) {
        let pace = why
            .fires_in_ms
            .map_or(String::new(), |ms| format!("; if events go on as they do, in {}", lasting(ms)));
        line(format!("  {} of event time are missing{pace}", lasting(at - now)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_missing() {
        let why = Why {
            step: "per_user".to_owned(),
            next_end_ms: Some(60_000),
            fires_at_ms: Some(120_000),
            watermark_ms: Some(90_000),
            fires_in_ms: Some(15_000),
            ..Why::default()
        };
        let text = told(&why, 0);
        assert!(text.starts_with("per_user: the window that ends 1970-01-01"), "{text}");
        assert!(
            text.contains("all partitions are idle") && text.contains("of event time are missing; if"),
            "{text}"
        );
        assert_eq!(told(&Why { step: "a".to_owned(), ..Why::default() }, 0), "a: no window is open\n");
    }
}
