//! Rules, their windows, and the state machine that tells a change once.
//!
//! Owner: every shard keeps a [`Window`] per rule over its own samples; the shard that owns a rule (by the
//! hash of its name) adds the shards' [`WindowPart`]s up in a [`RuleState`] and steps it.
//! Always: an event comes only when the state changes; an empty window decides nothing; a window takes
//! bounded memory, and its part is summed anew each time, so that nothing drifts.
//! Not here: clocks (`now` is an argument), timers (the crate says when to look again), the console itself,
//! rule files and the rule language, `for`, routing, silences and receivers.
//! Read next: `window.rs` for what counts as the last 60 s, `state.rs` for the states, `rule_state.rs` for
//! what the owner does.

mod rule;
pub use rule::{Comparison, Condition, RuleError, STALE_AFTER_MS, WINDOW_MS_MAX, WindowRule, default_rules};

mod part;
pub use part::WindowPart;

mod window;
pub use window::{BUCKET_MS, FUTURE_MS_MAX, Window};

mod state;
pub use state::{Event, State, step};

mod console;

mod rule_state;
pub use rule_state::RuleState;
