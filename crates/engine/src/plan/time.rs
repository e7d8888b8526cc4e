//! What the protocol has to know of a plan: its windowed steps, and what their time depends on.

use onceflow_protocol::coordinator::{TimeInput, WindowedStep};

use super::{Plan, Step, Stream, Window};

impl Plan {
    /// Places of the windowed steps in [`Plan::steps`], ascending: windowed steps are numbered in this order.
    pub fn windowed(&self) -> Vec<usize> {
        (0..self.steps.len()).filter(|step| self.steps[*step].window.is_some()).collect()
    }

    /// The windowed steps, by number.
    pub fn windows(&self) -> impl Iterator<Item = (&Step, &Window)> {
        self.steps.iter().filter_map(|step| Some((step, step.window.as_ref()?)))
    }

    /// The windowed steps, by number, as the protocol sees them.
    pub fn windowed_steps(&self) -> Vec<WindowedStep> {
        let windowed = self.windowed();
        let step = |step: &usize| {
            let step = &self.steps[*step];
            let inputs = self.time_inputs(&step.inputs, &windowed);
            let window = step.window.as_ref()?;
            let granularity_ms = window.spec.session_gap_ms().map_or(1, |_| window.spec.every_ms());
            Some(WindowedStep {
                inputs,
                lateness_ms: window.lateness_ms,
                emit: window.emits.rule(),
                granularity_ms,
            })
        };
        windowed.iter().filter_map(step).collect()
    }

    /// What the time of these streams depends on: sources, and windowed steps. Steps without a window pass time on; so do deduplications, whose
    /// rows have all gone on when the windows behind them fire.
    fn time_inputs(&self, streams: &[Stream], windowed: &[usize]) -> Vec<TimeInput> {
        let mut inputs = vec![];
        for stream in streams {
            match *stream {
                Stream::Source(source) => inputs.push(TimeInput::Source(source)),
                Stream::Step(step) => match windowed.iter().position(|windowed| *windowed == step) {
                    Some(number) if !self.steps[step].deduplicates() => inputs.push(TimeInput::Step(number)),
                    _ => inputs.extend(self.time_inputs(&self.steps[step].inputs, windowed)),
                },
                // No step reads a side stream.
                Stream::Late(_) | Stream::Errors(_) => {}
            }
        }
        inputs.sort();
        inputs.dedup();
        inputs
    }
}
