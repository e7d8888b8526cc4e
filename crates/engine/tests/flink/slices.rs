//! Sessions as docs/flink.md defines them for Onceflow, without tables, workers and panes: an event is late if its slice is settled, it joins
//! what is open within the gap, and a session is over when the slice of its last event is settled.

use onceflow_protocol::WindowSpec;

use crate::case::{Answer, Case, Event, Row, Step};

/// The answer to a case with sessions of that gap, milliseconds.
pub fn answer(case: &Case, gap: i64) -> Answer {
    let slice = WindowSpec::session(gap).expect("a gap").every_ms();
    let settled_at = |time: i64| time - time.rem_euclid(slice) + slice + gap;
    let mut frontier = i64::MIN;
    let mut open: Vec<Row> = vec![];
    let mut answer = Answer::default();
    for step in &case.steps {
        match step {
            Step::Watermark(watermark) => {
                frontier = frontier.max(watermark - case.lateness);
                let over = open.extract_if(.., |session| settled_at(session.end - gap) <= frontier);
                answer.rows.extend(over);
            }
            Step::Event { event, .. } if settled_at(event.time) <= frontier => {
                answer.late.push(event.clone())
            }
            Step::Event { event: Event { key, time, value }, .. } => {
                let touches = |session: &mut Row| {
                    session.key == *key && session.start - gap <= *time && *time <= session.end
                };
                let mut grown =
                    Row { key: key.clone(), start: *time, end: time + gap, count: 1, sum: *value };
                for session in open.extract_if(.., touches) {
                    grown.start = grown.start.min(session.start);
                    grown.end = grown.end.max(session.end);
                    grown.count += session.count;
                    grown.sum += session.sum;
                }
                open.push(grown);
            }
        }
    }
    answer.rows.extend(open);
    answer
}
