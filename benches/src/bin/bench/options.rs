//! What the command line asks for.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::backlog;
use crate::cases::{Case, Contender, base, cases};
use crate::checkpoints;
use crate::latency::{self, Pace};
use crate::recovery::{self, Recovery};

/// The options, as errors and the header of this program say them.
pub const USAGE: &str = "[--quick] [--case NAME]… [--only CONTENDER]… [--rounds N] [--sizes SMALL,LARGE] [--backlog-orders N] [--rate N] [--warm-up S] \
                         [--measured S] [--users N]";

/// One measurement.
pub enum Part {
    /// CPU time per record, as the slope between two sizes.
    Throughput(Case),
    /// From an order's due time to its answer's arrival, at a fixed rate.
    Latency(Case),
    /// An hour's input, worked off from its beginning.
    Backlog(Case),
    /// From kill -9 to the next commit.
    Recovery(Recovery),
    /// Bytes of a checkpoint, and its pause.
    Checkpoints(Case),
}

/// All that is asked for.
pub struct Options {
    /// What is measured, in this order.
    pub parts: Vec<Part>,
    /// Orders in the two inputs of a throughput case.
    pub sizes: [i64; 2],
    /// How often each contender takes its turn, where the command line says so.
    pub rounds: Option<usize>,
    /// Only one case, with small inputs.
    pub quick: bool,
    /// Of the latency's measurement.
    pub pace: Pace,
    /// Orders in the backlog.
    pub backlog_orders: i64,
    /// Users whose state is recovered, or checkpointed, where the command line says so.
    pub users: Option<u32>,
}

impl Part {
    fn name(&self) -> &'static str {
        match self {
            Part::Throughput(case) | Part::Latency(case) | Part::Backlog(case) | Part::Checkpoints(case) => {
                case.name
            }
            Part::Recovery(recovery) => recovery.case.name,
        }
    }

    /// Leaves only these contenders; whether one is left.
    fn retain(&mut self, only: &[String]) -> bool {
        let contenders = match self {
            Part::Throughput(case) | Part::Latency(case) | Part::Backlog(case) | Part::Checkpoints(case) => {
                &mut case.contenders
            }
            Part::Recovery(recovery) => &mut recovery.case.contenders,
        };
        contenders.retain(|one| only.contains(&format!("{one:?}").to_lowercase()));
        !contenders.is_empty()
    }

    fn all() -> Vec<Part> {
        let throughput = cases().into_iter().map(Part::Throughput);
        let others = [
            Part::Latency(latency::case()),
            Part::Backlog(backlog::case()),
            Part::Recovery(recovery::warm()),
            Part::Recovery(recovery::cold()),
            Part::Checkpoints(checkpoints::case()),
        ];
        throughput.chain(others).collect()
    }
}

/// Reads them.
///
/// # Errors
/// An option or a case that does not exist, or an option without its value.
pub fn parse(words: &[String]) -> Result<Options> {
    let mut options = Options {
        parts: vec![],
        sizes: [2_000_000, 8_000_000],
        rounds: None,
        quick: false,
        pace: Pace { rate: 5_000, warm_up: Duration::from_secs(15), measured: Duration::from_secs(60) },
        backlog_orders: backlog::HOUR,
        users: None,
    };
    let (mut words, mut only) = (words.iter(), vec![]);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word}: what? {USAGE}"));
        match word.as_str() {
            "--quick" => {
                use Contender::{Decode, FlinkHeap, Loop, Onceflow};
                let contenders = vec![Loop, Decode, Onceflow, FlinkHeap];
                options.parts = vec![Part::Throughput(Case { contenders, ..base() })];
                options.sizes = [1_000_000, 4_000_000];
                options.rounds = Some(2);
                options.quick = true;
            }
            "--case" => {
                let name = value()?;
                let known: Vec<_> = Part::all().iter().map(Part::name).collect();
                let part = Part::all().into_iter().find(|part| part.name() == name);
                options.parts.push(part.with_context(|| format!("no case {name}; there are {known:?}"))?);
            }
            "--only" => only.push(value()?.to_lowercase()),
            "--rounds" => options.rounds = Some(number(word, value()?)?),
            "--sizes" => {
                let (small, large) = value()?.split_once(',').context("--sizes SMALL,LARGE")?;
                options.sizes = [number(word, small)?, number(word, large)?];
            }
            "--backlog-orders" => options.backlog_orders = number(word, value()?)?,
            "--users" => options.users = Some(number(word, value()?)?),
            "--rate" => options.pace.rate = number(word, value()?)?,
            "--warm-up" => options.pace.warm_up = Duration::from_secs(number(word, value()?)?),
            "--measured" => options.pace.measured = Duration::from_secs(number(word, value()?)?),
            other => bail!("{other}: {USAGE}"),
        }
    }
    if options.sizes[0] >= options.sizes[1] {
        bail!("--sizes: the second is the larger one");
    }
    if options.parts.is_empty() {
        options.parts = Part::all();
    }
    if !only.is_empty() {
        options.parts.retain_mut(|part| part.retain(&only));
        if options.parts.is_empty() {
            bail!("none of {only:?} takes part in that");
        }
    }
    Ok(options)
}

fn number<N: FromStr>(word: &str, text: &str) -> Result<N> {
    text.parse().ok().with_context(|| format!("{word} {text}: not a number that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &str) -> Result<Vec<&'static str>> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        parse(&words).map(|options| options.parts.iter().map(Part::name).collect())
    }

    #[test]
    fn cases_of_every_kind_are_named_alike() {
        assert_eq!(
            names("--case latency --case hopping --case backlog").unwrap(),
            ["latency", "hopping", "backlog"]
        );
        assert_eq!(names("--quick").unwrap(), ["tumbling"]);
        assert_eq!(names("--case tumbling --case recovery --only flinkstreamrocksdb").unwrap(), ["recovery"]);
        assert_eq!(names("").unwrap().len(), cases().len() + 5);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for words in
            ["--case", "--case no", "--rounds many", "--sizes 5", "--sizes 5,5", "--only nobody", "--fast"]
        {
            assert!(names(words).is_err(), "{words}");
        }
    }
}
