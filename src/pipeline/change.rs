//! What became of a pipeline's windowed steps since a snapshot was written: whose state goes on, whose begins anew, and what would not
//! fit. These rules are asked before anyone is fenced, when state is restored, and by `validate --against-running`.
//!
//! State belongs to the step's name. Free to change is what rows go through on their way to a window, and what becomes of its results;
//! an aggregate that is new is known from the first window on that was not open when it was added. What the state itself is made of
//! (window, groups, an aggregate that is there) may change only where there is no state, or where an operator lets it go.

use std::fmt::Write as _;

use onceflow_engine::plan::{Emits, Plan, Step, Window};
use onceflow_engine::state::table::StateColumn;
use onceflow_protocol::{Decision, Frontiers};

use super::manifest::{AggregateState, Manifest, StepState};

/// Which state goes on.
#[derive(Debug, Default, PartialEq)]
pub struct Match {
    /// The windowed steps, in the plan's order.
    pub steps: Vec<StepState>,
    /// The number that the next new step gets.
    pub next_step_id: u32,
    /// Numbers of states in the snapshot that nobody goes on from.
    pub dropped: Vec<u32>,
    /// What an operator should know, a sentence each.
    pub notes: Vec<String>,
}

/// Finds each windowed step's state in the snapshot of `decision`.
///
/// # Errors
/// Everything that does not fit, with the way out.
pub fn match_steps(
    plan: &Plan,
    decision: &Decision,
    manifest: Option<&Manifest>,
) -> Result<Match, Vec<String>> {
    let nothing = Manifest::default();
    let manifest = manifest.unwrap_or(&nothing);
    let mut found = Match { next_step_id: manifest.next_step_id, ..Match::default() };
    let mut problems = vec![];
    let mut claimed = vec![];
    let by_name = |name: &str| manifest.steps.iter().find(|state| state.name == name);
    for (step, window) in plan.windows() {
        let former = step.was.as_deref().and_then(by_name);
        let Some(state) = by_name(&step.name).or(former) else {
            found.begin(step, window, Frontiers::START);
            continue;
        };
        claimed.push(state.id);
        let is_meant = |name: &String| *name == step.name || *name == state.name;
        if decision.discarded.iter().any(is_meant) {
            found.dropped.push(state.id);
            found.notes.push(format!(
                "step `{}` begins anew: its state is discarded, and windows that were open hold only what comes from now on",
                step.name
            ));
            found.begin(step, window, state.frontiers);
            continue;
        }
        let differences = differences(state, window);
        if differences.is_empty() {
            found.go_on(step, window, state, manifest);
        } else if manifest.holds(state.id) {
            problems.push(refusal(step, &differences, decision));
        } else {
            // Nothing is open: there is nothing that would not fit.
            found.dropped.push(state.id);
            found.begin(step, window, state.frontiers);
        }
    }
    for state in manifest.steps.iter().filter(|state| !claimed.contains(&state.id)) {
        if manifest.holds(state.id) && !decision.discarded.contains(&state.name) {
            let name = &state.name;
            problems.push(format!(
                "step `{name}` has open windows in the checkpoint, but the pipeline has no windowed step of that name any more: if it \
                 has another name now, write `was: {name}` there; to let its windows go, run with {}",
                discard(name, decision)
            ));
        }
        found.dropped.push(state.id);
    }
    for name in &decision.discarded {
        let is_known = by_name(name).is_some() || plan.windows().any(|(step, _)| step.name == *name);
        if !is_known {
            problems.push(format!("`--discard-state {name}`: there is no windowed step `{name}`"));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// The order of a step's aggregates in its state, for the engine.
pub fn columns(state: &StepState, window: &Window) -> Vec<StateColumn> {
    let column = |aggregate: &AggregateState| {
        let place = window.aggregates.iter().position(|planned| planned.name == aggregate.name);
        place.map(|place| StateColumn { aggregate: place, since: aggregate.since.unwrap_or(i64::MIN) })
    };
    state.aggregates.iter().filter_map(column).collect()
}

impl Match {
    /// A step without state.
    fn begin(&mut self, step: &Step, window: &Window, frontiers: Frontiers) {
        let id = self.next_step_id;
        self.next_step_id += 1;
        self.steps.push(StepState {
            id,
            name: step.name.clone(),
            identity: window.identity.clone(),
            aggregates: aggregates(window).collect(),
            above: window.above.clone(),
            frontiers,
        });
    }

    /// A step that goes on from its state.
    fn go_on(&mut self, step: &Step, window: &Window, state: &StepState, manifest: &Manifest) {
        let name = &step.name;
        let holds = manifest.holds(state.id);
        if holds && state.above != window.above {
            self.notes.push(format!(
                "what reaches step `{name}` has changed: windows that are open hold rows of before and of after{}",
                differing(&state.above, &window.above)
            ));
        }
        let last_pane = manifest.panes_of(state.id).max();
        let since = last_pane.map(|pane| window.spec.pane_end(pane));
        let mut known = state.aggregates.clone();
        for new in aggregates(window) {
            if known.iter().any(|aggregate| aggregate.name == new.name) {
                continue;
            }
            if let Some(since) = since {
                self.notes.push(format!(
                    "aggregate `{}` of step `{name}` is new: it is NULL in windows that begin before {since} (milliseconds since the \
                     epoch), as those may have been open before",
                    new.name
                ));
            }
            known.push(AggregateState { since, ..new });
        }
        let mut frontiers = state.frontiers;
        if window.emits == Emits::Final && frontiers.purged < frontiers.fired {
            self.notes.push(format!(
                "step `{name}` emits results once from now on: windows that have been emitted are closed, whatever their lateness"
            ));
            frontiers.purged = frontiers.fired;
        }
        self.steps.push(StepState {
            name: name.clone(),
            aggregates: known,
            above: window.above.clone(),
            frontiers,
            ..state.clone()
        });
    }
}

fn aggregates(window: &Window) -> impl Iterator<Item = AggregateState> {
    window.aggregates.iter().map(|aggregate| AggregateState {
        name: aggregate.name.clone(),
        identity: aggregate.identity.clone(),
        since: None,
    })
}

/// In what the state would not be the step's.
fn differences(state: &StepState, window: &Window) -> Vec<String> {
    let mut differences = vec![];
    if state.identity != window.identity {
        differences
            .push(format!("window or groups have changed{}", differing(&state.identity, &window.identity)));
    }
    for before in &state.aggregates {
        match window.aggregates.iter().find(|now| now.name == before.name) {
            None => differences.push(format!("aggregate `{}` is gone", before.name)),
            Some(now) if now.identity != before.identity => differences.push(format!(
                "aggregate `{}` has changed\n    then: {}\n    now:  {}",
                before.name, before.identity, now.identity
            )),
            Some(_) => {}
        }
    }
    differences
}

/// The lines that are not in both texts.
fn differing(then: &str, now: &str) -> String {
    let mut text = String::new();
    for (word, one, other) in [("then:", then, now), ("now: ", now, then)] {
        for line in one.lines().filter(|line| !other.lines().any(|same| same == *line)) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n    {word} {line}");
        }
    }
    text
}

fn refusal(step: &Step, differences: &[String], decision: &Decision) -> String {
    format!(
        "step `{}` cannot go on from the windows that are open in the checkpoint:\n  {}\n  undo the change, or let those windows go: \
         run with {}",
        step.name,
        differences.join("\n  "),
        discard(&step.name, decision)
    )
}

/// The command line that discards the state of a step once more.
fn discard(step: &str, decision: &Decision) -> String {
    let begin = format!("discard-state:{step}:");
    let applied = decision.requests.iter().filter_map(|id| id.strip_prefix(&begin)?.parse::<u32>().ok());
    match applied.max() {
        None => format!("`--discard-state {step}`"),
        Some(again) => {
            format!(
                "`--discard-state {step} --again {}` (it was applied before, which is once)",
                again.saturating_add(1)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use onceflow_engine::config::{Defaults, compile};
    use onceflow_engine::state::cold::Run;
    use onceflow_protocol::Epoch;

    use super::*;

    /// Its sink reads `totals`, or else the first step.
    fn plan(steps: &str) -> Plan {
        let first = steps.trim_start().split(':').next().unwrap_or_default();
        let from = if steps.contains("totals:") { "totals" } else { first };
        let text = format!(
            "pipeline: p\nkafka: {{ bootstrap_servers: \"b:1\" }}\nsources:\n  orders:\n    topics: [orders]\n    format: json\n    \
             schema: {{ user: bigint not null, amount: bigint not null }}\nsteps:\n{steps}sinks:\n  out: {{ from: {from}, topic: out, \
             format: json }}\ncheckpoint: {{ storage: \"file:///s\" }}\n"
        );
        compile("p.yaml", &text, &Defaults::default(), &|_: &str| None)
            .unwrap_or_else(|found| panic!("{found}"))
    }

    fn totals(name: &str, more: &str, window: &str, aggregate: &str) -> String {
        format!(
            "  {name}: {{ from: orders, {more} window: {{ tumbling: {window} }}, group_by: [user], aggregate: {{ {aggregate} }}, late: drop }}\n"
        )
    }

    fn simple() -> String {
        totals("totals", "", "1m", "n: count(*), total: sum(amount)")
    }

    fn decision(discarded: &[&str], requests: &[&str]) -> Decision {
        serde_json::from_value(serde_json::json!({
            "version": 1, "epoch": 3, "attempt": "a", "claim": "c", "transactional_id": "t", "positions": [],
            "counts": { "in": 0, "used": 0, "filtered": 0, "late": 0, "dead": 0, "dropped": 0, "out": 0 },
            "requests": requests, "manifest": null, "discarded": discarded, "topics": [],
        }))
        .unwrap()
    }

    /// A snapshot of the first plan, with a pane that begins at 60 s open in each of its steps, or with none.
    fn snapshot(plan: &Plan, open: bool) -> Manifest {
        let first = match_steps(plan, &decision(&[], &[]), None).unwrap();
        let run = |step: &StepState| Run { step: step.id, pane: 60_000, generation: 1 };
        let mut manifest =
            Manifest { epoch: Epoch(3), next_step_id: first.next_step_id, ..Manifest::default() };
        manifest.runs = first.steps.iter().filter(|_| open).map(run).collect();
        manifest.steps = first.steps;
        for step in &mut manifest.steps {
            step.frontiers = Frontiers { fired: 60_000, purged: 60_000 };
        }
        manifest
    }

    fn change(before: &str, after: &str, discarded: &[&str]) -> Result<Match, String> {
        let manifest = snapshot(&plan(before), true);
        match_steps(&plan(after), &decision(discarded, &[]), Some(&manifest)).map_err(|all| all.join("\n"))
    }

    #[test]
    fn what_does_not_concern_the_state_is_free() {
        let same = change(&simple(), &simple(), &[]).unwrap();
        assert_eq!((same.steps[0].id, same.dropped.len(), same.notes.len()), (0, 0, 0));
        let reordered = totals("totals", "", "1m", "total: sum(amount), n: count(*)");
        let after = change(&simple(), &reordered, &[]).unwrap();
        assert_eq!(after.notes, Vec::<String>::new());
        let columns = columns(&after.steps[0], plan(&reordered).steps[0].window.as_ref().unwrap());
        assert_eq!(columns.iter().map(|column| column.aggregate).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_changed_where_above_an_open_window_is_told() {
        let filtered = totals("totals", "where: amount > 1,", "1m", "n: count(*), total: sum(amount)");
        let after = change(&simple(), &filtered, &[]).unwrap();
        assert!(
            after.notes[0].contains("`totals`") && after.notes[0].contains("now:  where"),
            "{}",
            after.notes[0]
        );
        let manifest = snapshot(&plan(&simple()), false);
        let closed = match_steps(&plan(&filtered), &decision(&[], &[]), Some(&manifest)).unwrap();
        assert_eq!(closed.notes, Vec::<String>::new(), "no window is open");
    }

    #[test]
    fn what_the_state_is_made_of_is_refused_with_the_reason_and_the_way_out() {
        let cases = [
            (totals("totals", "", "5m", "n: count(*), total: sum(amount)"), "window 60000"),
            (totals("totals", "", "1m", "n: count(*)"), "`total` is gone"),
            (totals("totals", "", "1m", "n: count(*), total: sum(amount + 1)"), "`total` has changed"),
            (totals("totals", "", "1m", "n: count(*), amount: sum(amount)"), "`total` is gone"),
        ];
        for (after, reason) in cases {
            let refused = change(&simple(), &after, &[]).unwrap_err();
            assert!(refused.contains(reason) && refused.contains("`--discard-state totals`"), "{refused}");
            let discarded = change(&simple(), &after, &["totals"]).unwrap();
            assert_eq!(
                (discarded.steps[0].id, discarded.next_step_id, &discarded.dropped[..]),
                (1, 2, &[0][..])
            );
            assert_eq!(discarded.steps[0].frontiers.purged, 60_000, "what has fired does not fire again");
            let manifest = snapshot(&plan(&simple()), false);
            let closed = match_steps(&plan(&after), &decision(&[], &[]), Some(&manifest)).unwrap();
            assert_eq!(
                closed.steps[0].frontiers.purged, 60_000,
                "without open windows nothing stands in the way"
            );
        }
    }

    #[test]
    fn a_request_that_was_applied_is_told_how_to_be_repeated() {
        let manifest = snapshot(&plan(&simple()), true);
        let after = plan(&totals("totals", "", "5m", "n: count(*), total: sum(amount)"));
        let applied = decision(&[], &["discard-state:totals:1", "discard-state:totals:4"]);
        let refused = match_steps(&after, &applied, Some(&manifest)).unwrap_err();
        assert!(refused[0].contains("`--discard-state totals --again 5`"), "{}", refused[0]);
    }

    #[test]
    fn a_step_that_goes_takes_its_windows_only_if_told_to() {
        let two = simple() + &totals("others", "", "1m", "n: count(*)");
        let refused = change(&two, &simple(), &[]).unwrap_err();
        assert!(
            refused.contains("`was: others`") && refused.contains("`--discard-state others`"),
            "{refused}"
        );
        assert_eq!(change(&two, &simple(), &["others"]).unwrap().dropped, [1]);
        let unknown = change(&simple(), &simple(), &["other"]).unwrap_err();
        assert!(unknown.contains("no windowed step `other`"), "{unknown}");
    }

    #[test]
    fn a_renamed_step_goes_on() {
        let before = totals("sums", "", "1m", "n: count(*), total: sum(amount)");
        let after = totals("totals", "was: sums,", "1m", "n: count(*), total: sum(amount)");
        let found = change(&before, &after, &[]).unwrap();
        assert_eq!((found.steps[0].id, found.steps[0].name.as_str()), (0, "totals"));
        assert_eq!(change(&after, &after, &[]).unwrap().steps[0].id, 0, "`was` may stay");
    }

    #[test]
    fn a_new_aggregate_is_known_from_the_end_of_the_last_open_pane_on() {
        let after = totals("totals", "", "1m", "most: max(amount), n: count(*), total: sum(amount)");
        let found = change(&simple(), &after, &[]).unwrap();
        let since: Vec<_> =
            found.steps[0].aggregates.iter().map(|one| (one.name.as_str(), one.since)).collect();
        assert_eq!(since, [("n", None), ("total", None), ("most", Some(120_000))]);
        assert!(found.notes[0].contains("`most`") && found.notes[0].contains("120000"), "{}", found.notes[0]);
        let columns = columns(&found.steps[0], plan(&after).steps[0].window.as_ref().unwrap());
        let columns: Vec<_> = columns.iter().map(|column| (column.aggregate, column.since)).collect();
        assert_eq!(columns, [(1, i64::MIN), (2, i64::MIN), (0, 120_000)]);
    }
}
