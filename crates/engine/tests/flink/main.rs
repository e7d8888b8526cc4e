//! The same streams through Onceflow and through Apache Flink: `recorded/` holds random cases with Flink's answers, which ours must equal,
//! and `differences.txt` one small case for each difference that is meant, with both answers. docs/flink.md gives the reasons.
//!
//! Session windows are compared in streams in which both say the same (`sessions.rs`), and in all others with what the page says (`slices.rs`).
//!
//! A watermark is explicit in a case, and comes with a barrier: so lateness means the same in both. `scripts/flink-diff` runs new
//! cases through a real Flink, and records these anew.

mod case;
mod generate;
mod live;
mod ours;
mod sessions;
mod slices;

use std::fmt::Write;

use crate::case::{Answer, Case, Windows, parse};
use crate::ours::{Emit, MODES, Mode};

const RECORDED: [&str; 4] = [
    include_str!("recorded/tumbling.txt"),
    include_str!("recorded/hopping.txt"),
    include_str!("recorded/cumulative.txt"),
    include_str!("recorded/session.txt"),
];
const DIFFERENCES: &str = include_str!("differences.txt");

/// Differences that are shown; the others are counted.
const SHOWN: usize = 5;

/// Asserts that ours is Flink's answer to every case, however it is run.
fn assert_same(cases: &[Case]) {
    let mut found = vec![];
    for case in cases {
        let expected = case.flink.last(case.windows).lines();
        found.extend(answers(case).find_map(|(emit, mode, answer)| {
            // A final row comes once: nothing may be left out of account.
            let answer = if emit == Emit::Updates { answer.last(case.windows) } else { answer };
            difference(case, (emit, mode), &expected, &answer.lines())
        }));
    }
    let shown = found.iter().take(SHOWN).fold(String::new(), |text, difference| text + difference);
    assert!(found.is_empty(), "{} of {} cases differ\n{shown}", found.len(), cases.len());
}

/// What comes out of a case, once for every way of running it.
fn answers(case: &Case) -> impl Iterator<Item = (Emit, Mode, Answer)> {
    let emits: &[Emit] = match case.windows {
        Windows::Session { .. } => &[Emit::Final],
        _ => &[Emit::Final, Emit::Updates],
    };
    emits.iter().flat_map(move |emit| {
        let plan = ours::plan(case, *emit);
        MODES.into_iter().map(move |mode| {
            let answer = ours::answer(case, &plan, mode);
            let answer = answer.unwrap_or_else(|error| panic!("{case}\n{mode:?}: {error}"));
            (*emit, mode, answer)
        })
    })
}

/// How an answer differs from the expected one, for people; both sorted.
fn difference(case: &Case, how: (Emit, Mode), expected: &[String], found: &[String]) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut text = format!("\n{case}{how:?} (- expected, + found)\n");
    let mut rest = found.to_vec();
    for line in expected {
        match rest.iter().position(|found| found == line) {
            Some(place) => drop(rest.remove(place)),
            None => writeln!(text, "- {line}").expect("a string takes everything"),
        }
    }
    rest.iter().for_each(|line| writeln!(text, "+ {line}").expect("a string takes everything"));
    Some(text)
}

#[test]
fn as_flink_answered() {
    for recorded in RECORDED {
        let cases = parse(recorded);
        assert!(cases.len() >= 50, "where are the cases?");
        assert_same(&cases);
    }
}

#[test]
fn differences_are_meant() {
    let page = include_str!("../../../../docs/flink.md");
    for case in parse(DIFFERENCES) {
        assert!(page.contains(&format!("`{}`", case.name)), "docs/flink.md says nothing of `{}`", case.name);
        let expected = case.ours.lines();
        assert_ne!(case.flink.lines(), expected, "Flink does the same in `{}`", case.name);
        for (emit, mode, answer) in answers(&case).filter(|(emit, ..)| *emit == Emit::Final) {
            let found = difference(&case, (emit, mode), &expected, &answer.lines());
            assert_eq!(found, None, "{}", found.as_deref().unwrap_or_default());
        }
    }
}

#[test]
fn sessions_are_settled_slice_by_slice() {
    for number in 0..400 {
        let case = generate::any_case("session", 5, number);
        let Windows::Session { gap } = case.windows else { panic!("other windows") };
        let expected = slices::answer(&case, gap).lines();
        for (emit, mode, answer) in answers(&case) {
            let found = difference(&case, (emit, mode), &expected, &answer.lines());
            assert_eq!(found, None, "{}", found.as_deref().unwrap_or_default());
        }
    }
}

#[test]
fn a_seed_says_the_same_again() {
    for kind in generate::KINDS {
        let [one, again] =
            [generate::case(kind, 7, 3), generate::case(kind, 7, 3)].map(|case| case.to_string());
        assert_eq!(one, again);
        let [read] = &parse(&one)[..] else { panic!("one case") };
        assert_eq!(read.to_string(), one);
    }
}
