//! What the owner of a rule keeps: the latest part of each shard, and the state.

use crate::{Event, State, WindowPart, WindowRule, step};

/// A rule at its owner.
#[derive(Debug)]
pub struct RuleState {
    rule: WindowRule,
    /// Absent until a shard's first report: a part alone may say the opposite of the whole.
    parts: Vec<Option<WindowPart>>,
    state: State,
    /// Of all shards' windows, as of the last step; nothing where they held no sample.
    average: Option<f64>,
    /// When it last ceased to fire, as far as this process knows.
    resolved_ms: Option<i64>,
}

impl RuleState {
    /// A rule of which no shard has reported anything, in the state in which it was left.
    pub fn new(rule: WindowRule, shards: usize, state: State) -> RuleState {
        RuleState { rule, parts: vec![None; shards], state, average: None, resolved_ms: None }
    }

    /// The rule.
    pub fn rule(&self) -> &WindowRule {
        &self.rule
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When it came to stand there, in milliseconds since 1970. Of a firing rule it is kept over restarts; of an
    /// inactive one it is when it resolved, and nothing if that was before this process.
    pub fn since_ms(&self) -> Option<i64> {
        match self.state {
            State::Firing { since_ms, .. } => Some(since_ms),
            State::Inactive => self.resolved_ms,
        }
    }

    /// The average that was last held against the threshold; nothing while the window is empty, or before every
    /// shard has reported once.
    pub fn average(&self) -> Option<f64> {
        self.average
    }

    /// The shard's latest part, in place of its last. A shard reports when a sample changed its window, and
    /// at [`Window::next_change_ms`](crate::Window::next_change_ms): what it reported last counts until then.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn report(&mut self, shard: usize, part: WindowPart) {
        self.parts[shard] = Some(part);
    }

    /// Steps the rule over all shards' parts; what is to be told, if anything changed. Before every shard has
    /// reported once nothing is decided.
    pub fn evaluate(&mut self, now_ms: i64) -> Option<Event> {
        let mut whole = WindowPart::default();
        for part in &self.parts {
            whole.add_part((*part)?);
        }
        let (state, event) = step(&self.rule, self.state, whole, now_ms);
        self.state = state;
        self.average = whole.average();
        if let Some(Event::Resolved { .. }) = event {
            self.resolved_ms = Some(now_ms);
        }
        event
    }

    /// When the rule must be evaluated even if no shard reports.
    pub fn deadline_ms(&self) -> Option<i64> {
        self.state.deadline_ms(&self.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{STALE_AFTER_MS, Window, default_rules};
    use model::{Sample, Timestamp};

    /// The rule with its windows on two shards, driven as the server drives it: a report after each sample
    /// and at each told change, one evaluation per report.
    struct Timeline {
        rule: RuleState,
        windows: [Window; 2],
        now_ms: i64,
        lines: Vec<(i64, String)>,
    }

    impl Timeline {
        fn of_cpu_usage() -> Timeline {
            let [rule, ..] = default_rules();
            let windows = [Window::new(&rule, 0), Window::new(&rule, 0)];
            Timeline { rule: RuleState::new(rule, 2, State::Inactive), windows, now_ms: 0, lines: Vec::new() }
        }

        fn look(&mut self) {
            for (shard, window) in self.windows.iter().enumerate() {
                self.rule.report(shard, window.part(self.now_ms));
            }
            if let Some(event) = self.rule.evaluate(self.now_ms) {
                self.lines.push((self.now_ms, event.console_line(self.rule.rule())));
            }
        }

        fn pass_until(&mut self, until_ms: i64) {
            loop {
                let changes = self.windows.iter().filter_map(|window| window.next_change_ms(self.now_ms));
                match changes.chain(self.rule.deadline_ms()).min() {
                    Some(at) if at <= until_ms => {
                        assert!(at > self.now_ms, "time goes on");
                        self.now_ms = at;
                        self.look();
                    }
                    _ => break,
                }
            }
            self.now_ms = until_ms;
        }

        fn sample(&mut self, at_ms: i64, value: f64) {
            self.pass_until(at_ms);
            let timestamp = Timestamp::first_of_milli(at_ms);
            self.windows[(at_ms / 500 % 2) as usize].add(at_ms, Sample { timestamp, value });
            self.look();
        }
    }

    /// 20 s of high values on two shards give one line; then low values, one more.
    #[test]
    fn twenty_seconds_of_high_values_give_one_line_and_low_values_one_more() {
        let mut timeline = Timeline::of_cpu_usage();
        for at_ms in (0..20_000).step_by(500) {
            timeline.sample(at_ms, 95.0);
        }
        let fired = "🚨 [ALERT] cpu_usage avg(60s) > 80.0 (current: 95.0) samples=1";
        assert_eq!(timeline.lines, [(0, fired.to_owned())]);
        for at_ms in (20_000..60_000).step_by(500) {
            timeline.sample(at_ms, 50.0);
        }
        // 40 × 95 and n × 50 average to 80 at n = 20, which no longer holds: the 20th at 29,500 ms.
        let resolved = "✅ [ALERT RESOLVED] cpu_usage returned to normal (avg: 80.0)";
        assert_eq!(timeline.lines[1..], [(29_500, resolved.to_owned())]);
    }

    #[test]
    fn where_it_stands_since_when_and_by_which_average_can_be_asked() {
        let mut timeline = Timeline::of_cpu_usage();
        assert_eq!((timeline.rule.average(), timeline.rule.since_ms()), (None, None));
        timeline.sample(500, 50.0);
        assert_eq!((timeline.rule.average(), timeline.rule.since_ms()), (Some(50.0), None));
        timeline.sample(1_000, 150.0);
        timeline.sample(1_500, 85.0);
        assert_eq!((timeline.rule.average(), timeline.rule.since_ms()), (Some(95.0), Some(1_000)));
        timeline.sample(2_000, 5.0);
        assert_eq!((timeline.rule.average(), timeline.rule.since_ms()), (Some(72.5), Some(2_000)));
        timeline.pass_until(200_000);
        assert_eq!((timeline.rule.average(), timeline.rule.since_ms()), (None, Some(2_000)));
        let left = State::Firing { since_ms: -5, empty_since_ms: None };
        let restored = RuleState::new(timeline.rule.rule().clone(), 2, left);
        assert_eq!((restored.average(), restored.since_ms()), (None, Some(-5)));
    }

    /// A restart: one shard's part alone would fire, or resolve, what the whole does not.
    #[test]
    fn nothing_is_decided_before_every_shard_has_reported() {
        let [rule, ..] = default_rules();
        let part_of = |value: f64| {
            let mut window = Window::new(&rule, 0);
            window.add(0, Sample { timestamp: Timestamp::first_of_milli(0), value });
            window.part(0)
        };
        let left_firing = State::Firing { since_ms: -5_000, empty_since_ms: None };
        for (state, first, second) in [(State::Inactive, 95.0, 5.0), (left_firing, 5.0, 195.0)] {
            let mut rule = RuleState::new(rule.clone(), 2, state);
            rule.report(1, part_of(first));
            assert!(rule.evaluate(0).is_none());
            rule.report(0, part_of(second));
            assert!(rule.evaluate(0).is_none());
            assert_eq!(rule.state(), state);
        }
    }

    #[test]
    fn an_alert_without_further_samples_resolves_by_its_deadline_alone() {
        let mut timeline = Timeline::of_cpu_usage();
        timeline.sample(500, 95.0);
        timeline.pass_until(86_400_000);
        let left_ms = 500 + 100 + 60_000;
        let resolved = "✅ [ALERT RESOLVED] cpu_usage returned to normal (no samples for 5m)";
        assert_eq!(timeline.lines[1..], [(left_ms + STALE_AFTER_MS, resolved.to_owned())]);
        assert_eq!(timeline.rule.deadline_ms(), None);
    }

    /// Low old values leave the window by time alone, without a further sample, and the rest fires.
    #[test]
    fn the_window_moving_on_is_enough_to_fire() {
        let mut timeline = Timeline::of_cpu_usage();
        timeline.sample(0, 10.0);
        timeline.sample(30_500, 90.0);
        assert!(timeline.lines.is_empty());
        timeline.pass_until(70_000);
        let fired = "🚨 [ALERT] cpu_usage avg(60s) > 80.0 (current: 90.0) samples=1";
        assert_eq!(timeline.lines, [(60_100, fired.to_owned())]);
    }
}
