//! Windows, frontiers and clocks, where 64 bits end.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::DataType;
use onceflow_engine::plan::AggregateFunction;
use onceflow_engine::state::aggregate::AggregateSpec;
use onceflow_engine::state::cold::MemoryColdStore;
use onceflow_engine::state::table::Layout;
use onceflow_engine::state::window_state::{Origin, WindowState};
use onceflow_protocol::{
    ClaimId, Counts, Decision, Delay, Epoch, EventTime, FORMAT_VERSION, Frontiers, NextOffset,
    PartitionClock, Position, Watermark, WindowSpec,
};

use super::control::World;
use crate::draw::Draw;

pub fn target(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let every = draw.integer();
    let size = if draw.byte() < 128 { every.saturating_mul(i64::from(draw.byte())) } else { draw.integer() };
    clock(&mut draw);
    let cumulative = draw.byte() < 64;
    let new = if cumulative { WindowSpec::cumulative } else { WindowSpec::hopping };
    let Some(spec) = new(size, every) else {
        let fits = every > 0 && every <= size && size <= WindowSpec::MAX_SIZE_MS && size % every == 0;
        assert!(!fits, "{size} every {every}");
        return;
    };
    let spec = if draw.byte() < 128 { spec } else { spec.shifted(draw.integer()) };
    arithmetic(spec, &mut draw);
    state(spec, &mut draw);
    epochs(&mut draw);
}

/// Panes and windows against their definition, in 128 bits.
fn arithmetic(spec: WindowSpec, draw: &mut Draw) {
    let (size, every) = (i128::from(spec.size_ms()), i128::from(spec.every_ms()));
    let offset = i128::from(spec.offset_ms());
    let period = if spec.is_cumulative() { size } else { every };
    assert!((0..period).contains(&offset));
    let Some(time) = EventTime::new(draw.integer()) else { return };
    let ms = i128::from(time.ms());
    let pane = spec.pane_of(time);
    assert_eq!(i128::from(pane), (ms - offset).div_euclid(every) * every + offset);
    assert_eq!(i128::from(spec.first_end(pane)), i128::from(pane) + every);
    // The last window that holds the pane ends with the period, or so long after the pane's start.
    let last = match spec.is_cumulative() {
        true => (i128::from(pane) - offset).div_euclid(size) * size + offset + size,
        false => i128::from(pane) + size,
    };
    assert_eq!(i128::from(spec.last_end(pane)), last);
    let frontier = draw.integer();
    let beyond = ((i128::from(frontier) - offset).div_euclid(every) + 1) * every + offset;
    let first = beyond.max(i128::from(pane) + every);
    let expected = (first <= last).then_some(first);
    assert_eq!(spec.next_end(pane, frontier).map(i128::from), expected, "{spec:?} {pane} {frontier}");
    if let Some(end) = spec.next_end(pane, frontier) {
        let start = if spec.is_cumulative() { last } else { i128::from(end) } - size;
        assert_eq!(i128::from(spec.start(end)), start);
        assert!(size / every > 10_000 || spec.panes(end).any(|other| other == pane));
    }
}

fn clock(draw: &mut Draw) {
    let watermark = (draw.byte() < 128).then(|| Watermark(draw.integer()));
    let idle_after = (draw.byte() < 128).then(|| draw.integer() as u64);
    let delay = match draw.byte() < 192 {
        true => Delay::Fixed(draw.integer()),
        false => {
            let (a, b) = (draw.integer(), draw.integer());
            Delay::Percentile { cover_ppm: 900_000, min_ms: a.min(b), max_ms: a.max(b) }
        }
    };
    let mut clock = PartitionClock::new(NextOffset(draw.integer()), watermark, delay, idle_after);
    for _ in 0..draw.below(16) {
        let before = clock.clone();
        let to = NextOffset(draw.integer());
        let moved = match draw.below(3) {
            0 => {
                let max = (draw.byte() < 200).then(|| draw.integer());
                clock.observe(max.as_slice());
                let moved = clock.advance(to, max);
                assert!(moved.is_err() || !clock.is_idle(draw.integer() as u64));
                moved
            }
            1 => clock.reached_end(to, draw.integer() as u64),
            _ => {
                clock.held_back(draw.integer() as u64);
                continue;
            }
        };
        assert_eq!(moved.is_err(), to < before.next_offset());
        assert_eq!(clock.next_offset(), to.max(before.next_offset()));
        assert!(clock.watermark() >= before.watermark(), "the watermark went back");
        clock.is_idle(draw.integer() as u64);
    }
}

/// Epochs of a coordinator whose partitions have watermarks anywhere.
fn epochs(draw: &mut Draw) {
    let partitions = (0..1 + draw.below(3) as i32).map(|partition| Position {
        source: "s".to_owned(),
        topic: "s".to_owned(),
        partition,
        // What lies beyond is refused before a coordinator sees it.
        next_offset: NextOffset(draw.integer().rem_euclid(Decision::LIMIT as i64)),
        watermark: (draw.byte() < 200).then(|| Watermark(draw.integer())),
        disorder: None,
    });
    let decision = Decision {
        version: FORMAT_VERSION,
        epoch: Epoch(7),
        attempt: String::new(),
        claim: ClaimId("theirs".to_owned()),
        transactional_id: "t".to_owned(),
        positions: partitions.collect(),
        counts: Counts::default(),
        requests: vec![],
        manifest: None,
        discarded: vec![],
        topics: vec![],
    };
    let fired = draw.integer();
    World::new(decision, Frontiers { fired, purged: fired }, draw).run();
}

/// Rows at any time, frontiers anywhere, panes that a manifest may claim: what is late is late by definition.
fn state(spec: WindowSpec, draw: &mut Draw) {
    let count = AggregateSpec {
        function: AggregateFunction::Count,
        argument: DataType::Null,
        result: DataType::Int64,
    };
    let layout = Arc::new(Layout::new(vec![], vec![count]).unwrap());
    let mut state = WindowState::with_layout(7, spec, layout);
    let cold = MemoryColdStore::new();
    for _ in 0..draw.below(3) {
        // Damaged, or as good as any.
        if let Ok(pane) = state.begin_restore(draw.integer()) {
            state.finish_restore(pane, Origin::Other).unwrap();
        }
    }
    let mut purged = i64::MIN;
    for _ in 0..draw.below(8) {
        let times: Vec<i64> =
            (0..draw.below(5)).filter_map(|_| EventTime::new(draw.integer()).map(EventTime::ms)).collect();
        let updated = state.update(&[], &[None], &Int64Array::from(times.clone()), purged).unwrap();
        assert_eq!(updated.used + updated.late.len() as u64, times.len() as u64);
        for (row, time) in times.iter().enumerate() {
            let pane = spec.pane_of(EventTime::new(*time).unwrap());
            let late = updated.late.contains(&(row as u32));
            assert_eq!(late, spec.last_end(pane) <= purged, "{time} with {spec:?} and {purged}");
        }
        let next = state.next_end(purged);
        assert!(next.is_none_or(|end| end > purged));
        state.open_windows(purged);
        purged = purged.max(draw.integer());
        state.purge(purged, &cold).unwrap();
    }
    state.freeze();
}
