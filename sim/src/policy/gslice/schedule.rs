//! Shares specified in advance: `20s:60`, or `vision@20s:60` for one tenant.

use std::fmt;

use cotenant_profiles::Nanos;

use crate::policy::{Kind, LayoutError, OptionType, Value};
use crate::scenario::Setup;

/// One line of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Time since the start of the run, including the warm-up.
    pub(super) at: Nanos,
    /// The tenant whose share it is; `None`: every tenant's.
    tenant: Option<String>,
    /// Percent.
    pub(super) share: f64,
}

/// Entries in order of time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule(pub(super) Vec<Entry>);

impl OptionType for Schedule {
    const KIND: Kind = Kind::Texts;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Texts(texts) => parse(texts).map(Self),
            other => Err(format!("{other} is not a list")),
        }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Texts(self.0.iter().map(Entry::to_string).collect()))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tenant) = &self.tenant {
            write!(f, "{tenant}@")?;
        }
        write!(f, "{}:{}", self.at, self.share)
    }
}

/// Reads `[TENANT@]TIME:SHARE`, and puts the entries in order of time.
fn parse(texts: &[String]) -> Result<Vec<Entry>, String> {
    let mut entries = texts.iter().map(|text| entry(text)).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|e| e.at);
    Ok(entries)
}

fn entry(text: &str) -> Result<Entry, String> {
    let wrong = |what: String| {
        format!("`{text}`: {what}; write TIME:SHARE such as \"20s:60\", or TENANT@TIME:SHARE")
    };
    let (when, share) =
        text.rsplit_once(':').ok_or_else(|| wrong("no `:` before the share".to_owned()))?;
    let (tenant, at) = match when.rsplit_once('@') {
        Some((tenant, at)) => (Some(tenant.to_owned()), at),
        None => (None, when),
    };
    let at =
        at.trim().parse().map_err(|e: cotenant_profiles::units::UnitError| wrong(e.to_string()))?;
    let share: f64 = share
        .trim()
        .trim_end_matches('%')
        .parse()
        .map_err(|_| wrong(format!("`{share}` is not a percentage")))?;
    if !(1.0..=100.0).contains(&share) {
        return Err(wrong(format!("a share is between 1 and 100 %, not {share}")));
    }
    Ok(Entry { at, tenant, share })
}

impl Entry {
    /// Whether it applies to tenant `t`.
    pub(super) fn concerns(&self, t: usize, setup: &Setup) -> bool {
        self.tenant.as_ref().is_none_or(|name| *name == setup.tenants[t].name)
    }

    /// Checks that its tenant exists.
    pub(super) fn check(&self, setup: &Setup) -> Result<(), LayoutError> {
        match &self.tenant {
            Some(name) if !setup.tenants.iter().any(|t| t.name == *name) => {
                Err(LayoutError(format!("`schedule` names `{name}`, which is not a tenant")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<Entry>, String> {
        parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn entries_come_in_order_of_time() {
        let entries = read(&["20s:60", "0s:30", "a:b@1.5s:12.5%"]).unwrap();
        let expected = [(0, None, 30.0), (1_500, Some("a:b"), 12.5), (20_000, None, 60.0)];
        assert_eq!(entries.len(), 3);
        for (entry, (ms, tenant, share)) in entries.iter().zip(expected) {
            assert_eq!(entry.at, Nanos::from_millis(ms));
            assert_eq!((entry.tenant.as_deref(), entry.share), (tenant, share));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (text, says) in [
            ("20s", "no `:` before the share"),
            ("20:60", "`20` is not a duration"),
            ("20s:sixty", "`sixty` is not a percentage"),
            ("20s:0", "between 1 and 100 %, not 0"),
            ("20s:NaN", "between 1 and 100 %, not NaN"),
            ("x@y:5", "`y` is not a duration"),
        ] {
            let message = read(&[text]).unwrap_err();
            assert!(message.contains(says), "{text}: {message}");
            assert!(message.contains("write TIME:SHARE"), "{message}");
        }
    }
}
