//! Rules over the average of a window.

use crate::BUCKET_MS;
use model::{LabelError, LabelSet, Slot};
use std::fmt;

/// The longest window of a rule. Memory per rule and shard grows with it: 24 bytes per [`BUCKET_MS`].
pub const WINDOW_MS_MAX: i64 = 60 * 60 * 1_000;

/// How long a firing alert outlives its last sample in the window, unless the rule says otherwise.
pub const STALE_AFTER_MS: i64 = 5 * 60 * 1_000;

const _: () = assert!(WINDOW_MS_MAX % BUCKET_MS == 0);

/// How an average is held against a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Comparison {
    /// As it stands in a rule and on the console.
    pub fn sign(self) -> &'static str {
        match self {
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
        }
    }
}

/// What an average must meet for the rule to fire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// How the average stands to the threshold.
    pub comparison: Comparison,
    /// What it is compared with.
    pub threshold: f64,
}

impl Condition {
    /// Whether an average meets the condition.
    pub fn holds(&self, average: f64) -> bool {
        match self.comparison {
            Comparison::Greater => average > self.threshold,
            Comparison::GreaterOrEqual => average >= self.threshold,
            Comparison::Less => average < self.threshold,
            Comparison::LessOrEqual => average <= self.threshold,
        }
    }
}

/// Why a rule was refused; its author's to mend.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleError {
    /// The rule's name breaks a rule for names.
    Name(LabelError),
    /// The metric's name breaks a rule for names.
    Metric(LabelError),
    /// The window is no positive multiple of [`BUCKET_MS`], or longer than [`WINDOW_MS_MAX`].
    Window {
        /// The window that was asked for.
        window_ms: i64,
    },
    /// The threshold is no finite number.
    Threshold(f64),
    /// The time after which a firing alert without samples resolves is not positive.
    StaleAfter {
        /// The time that was asked for.
        stale_after_ms: i64,
    },
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleError::Name(error) => write!(f, "the rule's name: {error}"),
            RuleError::Metric(error) => write!(f, "the rule's metric: {error}"),
            RuleError::Window { window_ms } => {
                write!(f, "a window of {window_ms} ms: it must be a multiple of {BUCKET_MS} ms, ")?;
                write!(f, "above 0 and at most {WINDOW_MS_MAX} ms")
            }
            RuleError::Threshold(threshold) => {
                write!(f, "a threshold of {threshold}: it must be a finite number")
            }
            RuleError::StaleAfter { stale_after_ms } => {
                write!(f, "stale after {stale_after_ms} ms: it must be above 0")
            }
        }
    }
}

impl std::error::Error for RuleError {}

/// Fires while the average of all samples of a metric name in the last `window_ms` meets a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowRule {
    name: String,
    metric: String,
    window_ms: i64,
    condition: Condition,
    stale_after_ms: i64,
    slot: Slot,
}

impl WindowRule {
    /// A rule that resolves [`STALE_AFTER_MS`] after its window became empty.
    pub fn new(
        name: &str,
        metric: &str,
        window_ms: i64,
        condition: Condition,
    ) -> Result<WindowRule, RuleError> {
        // A rule's name follows the same rules as a metric's: it must not break a console line either.
        let hashed = LabelSet::new(name, &[]).map_err(RuleError::Name)?;
        LabelSet::new(metric, &[]).map_err(RuleError::Metric)?;
        if !(1..=WINDOW_MS_MAX).contains(&window_ms) || window_ms % BUCKET_MS != 0 {
            return Err(RuleError::Window { window_ms });
        }
        if !condition.threshold.is_finite() {
            return Err(RuleError::Threshold(condition.threshold));
        }
        Ok(WindowRule {
            name: name.to_owned(),
            metric: metric.to_owned(),
            window_ms,
            condition,
            stale_after_ms: STALE_AFTER_MS,
            slot: hashed.as_ref().hash().slot(),
        })
    }

    /// The same rule with another time until it resolves without samples.
    pub fn with_stale_after_ms(self, stale_after_ms: i64) -> Result<WindowRule, RuleError> {
        if stale_after_ms <= 0 {
            return Err(RuleError::StaleAfter { stale_after_ms });
        }
        Ok(WindowRule { stale_after_ms, ..self })
    }

    /// What the rule is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The metric whose samples are averaged, over all label sets.
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// The length of the window, a multiple of [`BUCKET_MS`].
    pub fn window_ms(&self) -> i64 {
        self.window_ms
    }

    /// When the rule fires.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// How long after its window became empty a firing alert resolves.
    pub fn stale_after_ms(&self) -> i64 {
        self.stale_after_ms
    }

    /// Which of `shards` shards adds the parts up: the one that would own a series of the rule's name.
    pub fn owner(&self, shards: usize) -> usize {
        self.slot.owner(shards)
    }
}

/// The three rules that are present when none are configured, so that the first hour works.
pub fn default_rules() -> [WindowRule; 3] {
    [("cpu_usage", 60_000, 80.0), ("memory_usage", 60_000, 90.0), ("error_rate", 30_000, 5.0)].map(
        |(metric, window_ms, threshold)| {
            let condition = Condition { comparison: Comparison::Greater, threshold };
            WindowRule::new(metric, metric, window_ms, condition).expect("the default rules are valid")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOVE_80: Condition = Condition { comparison: Comparison::Greater, threshold: 80.0 };

    #[test]
    fn each_comparison_holds_on_its_side_of_the_threshold() {
        for (comparison, expected) in [
            (Comparison::Greater, [false, false, true]),
            (Comparison::GreaterOrEqual, [false, true, true]),
            (Comparison::Less, [true, false, false]),
            (Comparison::LessOrEqual, [true, true, false]),
        ] {
            let condition = Condition { comparison, threshold: 80.0 };
            assert_eq!([79.0, 80.0, 81.0].map(|average| condition.holds(average)), expected);
            assert!(!condition.holds(f64::NAN));
        }
    }

    #[test]
    fn a_rule_that_cannot_work_is_refused_with_its_fault() {
        let rule = |name, metric, window_ms, condition| {
            WindowRule::new(name, metric, window_ms, condition).unwrap_err()
        };
        assert_eq!(rule("", "m", 100, ABOVE_80), RuleError::Name(LabelError::NameEmpty));
        assert_eq!(rule("a\nb", "m", 100, ABOVE_80), RuleError::Name(LabelError::NameHasControl));
        assert_eq!(rule("a", "\u{1b}", 100, ABOVE_80), RuleError::Metric(LabelError::NameHasControl));
        for window_ms in [i64::MIN, -100, 0, 1, 150, WINDOW_MS_MAX + BUCKET_MS] {
            assert_eq!(rule("a", "m", window_ms, ABOVE_80), RuleError::Window { window_ms });
        }
        let endless = Condition { threshold: f64::INFINITY, ..ABOVE_80 };
        assert_eq!(rule("a", "m", 100, endless), RuleError::Threshold(f64::INFINITY));
        let valid = WindowRule::new("a", "m", WINDOW_MS_MAX, ABOVE_80).unwrap();
        assert_eq!(valid.clone().with_stale_after_ms(0), Err(RuleError::StaleAfter { stale_after_ms: 0 }));
        assert_eq!(valid.with_stale_after_ms(1).unwrap().stale_after_ms(), 1);
    }

    #[test]
    fn every_rule_has_one_owner_that_does_not_change() {
        for rule in default_rules() {
            assert_eq!(rule.owner(1), 0);
            assert!(rule.owner(7) < 7);
            assert_eq!(rule.owner(7), WindowRule::new(rule.name(), "x", 100, ABOVE_80).unwrap().owner(7));
        }
    }
}
