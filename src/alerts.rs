//! `GET /alerts`: what is asked of every executor, what each tells of the rules it owns, and the page of it all.
//!
//! Always: a rule is told once, by its owner, and rules stand in the order in which they are configured.
//! Not here: the rules and their states (`alert`, `service/rules.rs`), how the question travels (`fan_in.rs`).

use query::ParameterError;
use query::json::{write_number, write_text};
use std::borrow::Cow;

/// Which alerts are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlertsQuery {
    state: Option<StateName>,
}

/// The states of SPEC §6.2 by name. A rule without `for` is never pending, and one that has resolved is inactive
/// again, since that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateName {
    /// The condition does not hold.
    Inactive,
    /// It holds, but not for long enough.
    Pending,
    /// It holds.
    Firing,
}

/// One rule, as its owner tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The rule's place among all rules.
    pub index: usize,
    /// The rule's name.
    pub rule: String,
    /// Where it stands.
    pub state: StateName,
    /// The average of its window; nothing while the window is empty or not known yet.
    pub value: Option<f64>,
    /// When it came to stand there, milliseconds since 1970; nothing when no change is remembered.
    pub since_ms: Option<i64>,
}

impl StateName {
    const ALL: [StateName; 3] = [StateName::Inactive, StateName::Pending, StateName::Firing];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            StateName::Inactive => "inactive",
            StateName::Pending => "pending",
            StateName::Firing => "firing",
        }
    }
}

impl AlertsQuery {
    /// Reads percent-decoded parameters. Unknown ones are ignored; of a repeated one the last counts.
    pub fn from_parameters<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<AlertsQuery, ParameterError> {
        let Some((_, text)) = pairs.filter(|(key, _)| key == "state").last() else {
            return Ok(AlertsQuery::default());
        };
        match StateName::ALL.into_iter().find(|state| state.name() == text) {
            Some(state) => Ok(AlertsQuery { state: Some(state) }),
            None => {
                Err(ParameterError::Invalid { parameter: "state", expected: "inactive, pending or firing" })
            }
        }
    }

    /// The answer: what all executors told, filtered and in order.
    pub fn render(&self, mut standings: Vec<Standing>) -> Vec<u8> {
        standings.retain(|standing| self.state.is_none_or(|state| standing.state == state));
        standings.sort_by_key(|standing| standing.index);
        let mut body = b"{\"alerts\":[".to_vec();
        for (at, standing) in standings.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            standing.render(&mut body);
        }
        body.extend_from_slice(b"]}");
        body
    }
}

impl Standing {
    fn render(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"rule\":");
        write_text(&self.rule, body);
        body.extend_from_slice(b",\"state\":");
        write_text(self.state.name(), body);
        body.extend_from_slice(b",\"value\":");
        match self.value {
            Some(value) => write_number(value, body),
            None => body.extend_from_slice(b"null"),
        }
        // A window rule averages over all label sets, so its alert has none of its own.
        body.extend_from_slice(b",\"labels\":{},\"since\":");
        match self.since_ms.and_then(rfc3339) {
            Some(since) => write_text(&since, body),
            None => body.extend_from_slice(b"null"),
        }
        body.extend_from_slice(b",\"acknowledged_by\":null}");
    }
}

/// `2025-09-17T13:45:23.123Z`; nothing for a time that no calendar names.
fn rfc3339(unix_ms: i64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_millisecond(unix_ms).ok()?;
    Some(format!("{timestamp:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AlertsQuery, ParameterError> {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        AlertsQuery::from_parameters(pairs.map(|(key, value)| (key.into(), value.into())))
    }

    fn standing(index: usize, rule: &str, state: StateName) -> Standing {
        Standing { index, rule: rule.into(), state, value: None, since_ms: None }
    }

    #[test]
    fn states_are_read_and_a_wrong_one_is_named() {
        assert_eq!(read("x=1"), Ok(AlertsQuery { state: None }));
        assert_eq!(read("state=firing"), Ok(AlertsQuery { state: Some(StateName::Firing) }));
        assert_eq!(read("state=x&state=pending"), Ok(AlertsQuery { state: Some(StateName::Pending) }));
        for text in ["state=", "state=Firing", "state=burning", "state=firing&state=x"] {
            assert_eq!(read(text).unwrap_err().to_string(), "invalid parameter: state", "{text}");
        }
    }

    #[test]
    fn alerts_stand_in_the_order_of_their_rules_and_only_those_asked_for() {
        let all = vec![
            standing(2, "c", StateName::Firing),
            standing(0, "a\"", StateName::Inactive),
            Standing {
                value: Some(85.5),
                since_ms: Some(1_758_116_723_120),
                ..standing(1, "b", StateName::Firing)
            },
        ];
        let rest = r#""labels":{},"since":null,"acknowledged_by":null}"#;
        let a = format!(r#"{{"rule":"a\"","state":"inactive","value":null,{rest}"#);
        let b = r#"{"rule":"b","state":"firing","value":85.5,"labels":{},"since":"2025-09-17T13:45:23.120Z","acknowledged_by":null}"#;
        let c = format!(r#"{{"rule":"c","state":"firing","value":null,{rest}"#);
        let page = |text: &str| String::from_utf8(read(text).unwrap().render(all.clone())).unwrap();
        assert_eq!(page(""), format!(r#"{{"alerts":[{a},{b},{c}]}}"#));
        assert_eq!(page("state=firing"), format!(r#"{{"alerts":[{b},{c}]}}"#));
        assert_eq!(page("state=pending"), r#"{"alerts":[]}"#);
    }

    #[test]
    fn a_time_beyond_the_calendar_is_no_time() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(rfc3339(i64::MAX), None);
    }
}
