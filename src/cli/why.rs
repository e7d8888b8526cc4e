//! `onceflow why`: what open windows wait for.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use onceflow_engine::lookup::{Held, HeldKind, HeldWindow};

use super::client::{DaemonArgs, pipeline_name};
use super::exit::ended;
use super::status::Format;
use super::table::{instant, lasting};
use crate::http::model::Reasons;
use crate::pipeline::{OfKey, Why, wall_clock_ms};

/// Show what the open windows of a running pipeline wait for, and those of one key
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow why orders-per-user --key 42")]
pub struct WhyArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    /// A key: its value, or a JSON object of all group columns
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,
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
        let key: Vec<_> = self.key.iter().map(|key| ("key", key.as_str())).collect();
        let reasons: Reasons =
            self.daemon.client()?.ask(&format!("/pipelines/{}/why", self.pipeline), &key)?;
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
    let mut text = match (why.next_end_ms, why.fires_at_ms, &why.key) {
        (Some(end), Some(at), _) => {
            let (end, at) = (instant(end), instant(at));
            format!("{}: the window that ends {end} fires when the watermark reaches {at}\n", why.step)
        }
        (_, _, None) => return format!("{}: no window is open\n", why.step),
        // What there is of the key need not be a window, and may be newer than what was said at the last barrier.
        (_, _, Some(_)) => format!("{}:\n", why.step),
    };
    let mut line = |sentence: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {sentence}");
    };
    let stands = match why.watermark_ms {
        Some(now) => format!("the watermark is at {}", instant(now)),
        None => "the watermark is not known yet".to_owned(),
    };
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
        (None, None) if why.watermark_ms.is_none() => "no record has come".to_owned(),
        (None, None) => "all partitions are idle, so that time stands until a record comes".to_owned(),
    };
    line(format!("{stands}: {held}"));
    if let (Some(now), Some(at)) = (why.watermark_ms, why.fires_at_ms)
        && now < at
    {
        let pace = why
            .fires_in_ms
            .map_or(String::new(), |ms| format!("; if events go on as they do, in {}", lasting(ms)));
        line(format!("{} of event time are missing{pace}", lasting(at - now)));
    }
    why.key.iter().for_each(|key| text += &told_of_key(why, key));
    text
}

/// Lines about what a step has of the key that was asked for.
fn told_of_key(why: &Why, key: &OfKey) -> String {
    let Held { kind, windows, more } = match key {
        OfKey::NoKey(reason) => return format!("  the key is none of this step: {reason}\n"),
        OfKey::Held(held) => held,
    };
    let mut lines = vec![];
    for HeldWindow { start_ms, end_ms, fires_at_ms, closes_at_ms } in windows {
        let (start, end, closes) = (instant(*start_ms), instant(*end_ms), instant(*closes_at_ms));
        let what = match kind {
            HeldKind::Windows => format!("the key is in the window from {start} to {end}"),
            HeldKind::Sessions => {
                format!("the key has a session from {start}, which ends at {end} if nothing joins it")
            }
            HeldKind::Totals => {
                format!("the key has totals since {start}, which end at {end} if nothing comes")
            }
            HeldKind::Rows => {
                let within = lasting(end_ms - start_ms);
                format!(
                    "a row of the key went on, of {start}: others within {within} of it are its duplicates"
                )
            }
        };
        let when = match fires_at_ms {
            Some(at) => {
                let pace = why.reached_in_ms(*at).map_or(String::new(), |ms| match ms {
                    0 => ", which it has".to_owned(),
                    ms => format!(", in {} if events go on as they do", lasting(ms)),
                });
                format!("fires when the watermark reaches {}{pace}", instant(*at))
            }
            None => {
                let has_fired = matches!(kind, HeldKind::Windows | HeldKind::Sessions);
                let before = if has_fired { "has fired, and " } else { "" };
                format!("{before}is forgotten when the watermark has reached {closes}")
            }
        };
        lines.push(format!("{what}; it {when}"));
    }
    if windows.is_empty() {
        lines.push(match kind {
            HeldKind::Windows | HeldKind::Sessions => {
                "the key is in no open window: it has had no record yet, or its windows have closed"
                    .to_owned()
            }
            HeldKind::Totals => {
                "the key has no totals: it has had no record yet, or was forgotten".to_owned()
            }
            HeldKind::Rows => "no row of the key is remembered, as of the last checkpoint".to_owned(),
        });
    }
    if *more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
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

    #[test]
    fn it_says_what_there_is_of_a_key() {
        let window =
            |fires_at_ms| HeldWindow { start_ms: 0, end_ms: 60_000, fires_at_ms, closes_at_ms: 90_000 };
        let of_key = |key| {
            let why = Why {
                step: "s".to_owned(),
                watermark_ms: Some(30_000),
                watermark_speed: Some(10.0),
                key: Some(key),
                ..Why::default()
            };
            told(&why, 0).lines().skip(2).map(|line| format!("{line}\n")).collect::<String>()
        };
        let held = |kind, windows, more| of_key(OfKey::Held(Held { kind, windows, more }));
        let two = held(HeldKind::Windows, vec![window(Some(60_000)), window(None)], 3);
        assert_eq!(
            two,
            "  the key is in the window from 1970-01-01T00:00:00.000Z to 1970-01-01T00:01:00.000Z; it fires when the watermark reaches \
             1970-01-01T00:01:00.000Z, in 3 s if events go on as they do\n  \
             the key is in the window from 1970-01-01T00:00:00.000Z to 1970-01-01T00:01:00.000Z; it has fired, and is forgotten when the watermark \
             has reached 1970-01-01T00:01:30.000Z\n  \
             and 3 more\n"
        );
        let due = held(HeldKind::Sessions, vec![window(Some(30_000))], 0);
        assert!(
            due.ends_with("fires when the watermark reaches 1970-01-01T00:00:30.000Z, which it has\n"),
            "{due}"
        );
        let totals = held(HeldKind::Totals, vec![window(None)], 0);
        assert!(totals.contains("; it is forgotten when the watermark has reached"), "{totals}");
        assert!(held(HeldKind::Rows, vec![], 0).contains("no row of the key is remembered"));
        assert_eq!(of_key(OfKey::NoKey("no".to_owned())), "  the key is none of this step: no\n");
    }
}
