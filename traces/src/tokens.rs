//! How many tokens a generated request has: `tokens_in = 512`,
//! `tokens_out = { lognormal = [128, 0.8], max = 1024 }`.
//!
//! | value | draws |
//! |---|---|
//! | `512` | always that |
//! | `{ uniform = [1, 512] }` | evenly from the first to the last |
//! | `{ exponential = 128 }` | of that mean |
//! | `{ normal = [512, 100] }` | mean, standard deviation |
//! | `{ lognormal = [128, 0.8] }` | mean, standard deviation of the logarithm |
//! | `{ gamma = [128, 1.5] }` | mean, coefficient of variation |
//! | `{ zipf = [2048, 1.1] }` | from 1 to the first, weights 1/k^s of the second |
//!
//! `min` (default 1) and `max` bound a draw, as a model's context does: what lies outside becomes
//! the bound, so that bounds move the mean.

use rand_distr::{Gamma, LogNormal, Zipf};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::error::{TraceError, hint};
use crate::rng::{Real, Rng};

/// The longest request there is: contexts of real models are below 2^24 tokens.
const LONGEST: u32 = 1 << 24;

/// A distribution of numbers of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenCount {
    law: Law,
    min: u32,
    max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    Always(u32),
    Uniform(u32, u32),
    Exponential(f64),
    Normal(f64, f64),
    Lognormal(f64, f64),
    Gamma(f64, f64),
    Zipf(u32, f64),
}

const LAWS: [&str; 6] = ["uniform", "exponential", "normal", "lognormal", "gamma", "zipf"];

/// Prompt and output of a tenant's generated requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tokens {
    /// Tokens of the prompt.
    pub tokens_in: TokenCount,
    /// Tokens of the output.
    pub tokens_out: TokenCount,
}

/// A tenant's draws, one request after the other.
#[derive(Clone, Debug)]
pub struct TokenDraws {
    tokens: Tokens,
    rng: Rng,
}

impl Tokens {
    /// The draws of `tenant`: a stream of their own, so that tokens move no arrival.
    #[must_use]
    pub fn draws(self, seed: u64, tenant: &str) -> TokenDraws {
        TokenDraws { tokens: self, rng: Rng::for_names(seed, &[tenant, "tokens"]) }
    }
}

impl TokenDraws {
    /// Prompt and output of the next request.
    pub fn draw(&mut self) -> (u32, u32) {
        let Tokens { tokens_in, tokens_out } = self.tokens;
        (tokens_in.draw(&mut self.rng), tokens_out.draw(&mut self.rng))
    }
}

impl TokenCount {
    /// Always `n`.
    #[must_use]
    pub const fn always(n: u32) -> Self {
        Self { law: Law::Always(n), min: 0, max: LONGEST }
    }

    /// Reads a number or a table such as `{ lognormal = [128, 0.8], max = 1024 }`.
    pub(crate) fn parse(field: &str, value: &Value) -> Result<Self, TraceError> {
        let flaw = |problem: String| TraceError::spec(field, problem);
        let whole = |value: &Value| {
            let n = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|&n| n <= LONGEST);
            n.ok_or_else(|| flaw(format!("`{value}` is not a whole number from 0 to {LONGEST}")))
        };
        let Value::Object(table) = value else { return Ok(Self::always(whole(value)?)) };
        let bound = |key: &str, default| table.get(key).map_or(Ok(default), whole);
        let (min, max) = (bound("min", 1)?, bound("max", LONGEST)?);
        if min > max {
            return Err(flaw(format!("min = {min} is above max = {max}")));
        }
        let known = || LAWS.into_iter().chain(["min", "max"]);
        if let Some(key) = table.keys().find(|key| !known().any(|k| k == *key)) {
            return Err(flaw(format!("`{key}` is unknown{}", hint(key, known()))));
        }
        let mut laws = LAWS.iter().filter_map(|&name| Some((name, table.get(name)?)));
        let (Some((name, parameters)), None) = (laws.next(), laws.next()) else {
            let example =
                "a number, or exactly one distribution, such as { lognormal = [128, 0.8] }";
            return Err(flaw(format!("give {example}; known: {}", LAWS.join(", "))));
        };
        Ok(Self { law: law(field, name, parameters)?, min, max })
    }

    /// No draw is smaller.
    #[must_use]
    pub fn least(&self) -> u32 {
        match self.law {
            Law::Always(n) => n,
            Law::Uniform(low, _) => low.clamp(self.min, self.max),
            _ => self.min,
        }
    }

    /// One number of tokens.
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        let draw = match self.law {
            Law::Always(n) => return n,
            Law::Uniform(low, high) => f64::from(low) + rng.below(u64::from(high - low) + 1) as f64,
            Law::Exponential(mean) => mean * rng.exp1(),
            Law::Normal(mean, deviation) => mean + deviation * rng.normal(),
            Law::Lognormal(mean, sigma) => {
                let mu = libm::log(mean) - 0.5 * sigma * sigma;
                rng.sample(LogNormal::new(Real(mu), Real(sigma)).expect("a finite sigma"))
            }
            Law::Gamma(mean, cv) => {
                let shape = 1.0 / (cv * cv);
                rng.sample(Gamma::new(Real(shape), Real(mean / shape)).expect("a cv above 0"))
            }
            Law::Zipf(n, s) => {
                rng.sample(Zipf::new(Real(f64::from(n)), Real(s)).expect("1 or more, s from 0"))
            }
        };
        // Below 0 and beyond 32 bits the conversion stops at the end of the range.
        (libm::round(draw) as u32).clamp(self.min, self.max)
    }
}

fn law(field: &str, name: &str, parameters: &Value) -> Result<Law, TraceError> {
    let numbers: Vec<f64> = match parameters {
        Value::Array(list) => list.iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect(),
        one => vec![one.as_f64().unwrap_or(f64::NAN)],
    };
    let longest = f64::from(LONGEST);
    let mean = |x: f64| x > 0.0 && x <= longest;
    let (law, form) = match (name, &numbers[..]) {
        ("uniform", &[low, high])
            if (0.0..=high).contains(&low) && high <= longest && low % 1.0 + high % 1.0 == 0.0 =>
        {
            (Some(Law::Uniform(low as u32, high as u32)), "")
        }
        ("uniform", _) => (None, "[first, last], whole numbers from 0"),
        ("exponential", &[m]) if mean(m) => (Some(Law::Exponential(m)), ""),
        ("exponential", _) => (None, "a mean above 0"),
        ("normal", &[m, d]) if mean(m) && (0.0..=longest).contains(&d) => {
            (Some(Law::Normal(m, d)), "")
        }
        ("normal", _) => (None, "[mean, standard deviation]"),
        ("lognormal", &[m, s]) if mean(m) && (0.0..=10.0).contains(&s) => {
            (Some(Law::Lognormal(m, s)), "")
        }
        ("lognormal", _) => (None, "[mean, sigma], sigma of the logarithm, from 0 to 10"),
        ("gamma", &[m, cv]) if mean(m) && (0.001..=100.0).contains(&cv) => {
            (Some(Law::Gamma(m, cv)), "")
        }
        ("gamma", _) => (None, "[mean, cv], cv from 0.001 to 100"),
        ("zipf", &[n, s]) if (1.0..=longest).contains(&n) && (0.0..=100.0).contains(&s) => {
            (Some(Law::Zipf(n as u32, s)), "")
        }
        _ => (None, "[largest, exponent], exponent from 0 to 100"),
    };
    law.ok_or_else(|| {
        TraceError::spec(field, format!("{name}: `{parameters}` is not {form} (at most {LONGEST})"))
    })
}

impl Serialize for TokenCount {
    /// The form that is read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, parameters) = match self.law {
            Law::Always(n) => return serializer.serialize_u32(n),
            Law::Uniform(low, high) => ("uniform", json!([low, high])),
            Law::Exponential(mean) => ("exponential", json!(mean)),
            Law::Normal(mean, deviation) => ("normal", json!([mean, deviation])),
            Law::Lognormal(mean, sigma) => ("lognormal", json!([mean, sigma])),
            Law::Gamma(mean, cv) => ("gamma", json!([mean, cv])),
            Law::Zipf(n, s) => ("zipf", json!([n, s])),
        };
        let mut table = Map::new();
        table.insert(name.to_owned(), parameters);
        table.insert("min".to_owned(), self.min.into());
        table.insert("max".to_owned(), self.max.into());
        table.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(json: &str) -> TokenCount {
        let value = serde_json::from_str(json).unwrap();
        TokenCount::parse("tokens_out", &value).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn every_distribution_has_its_mean_and_keeps_its_bounds() {
        for (json, mean) in [
            ("512", 512.0),
            (r#"{"uniform":[1,99]}"#, 50.0),
            (r#"{"exponential":128,"min":0}"#, 128.0),
            (r#"{"normal":[500,50]}"#, 500.0),
            (r#"{"lognormal":[128,0.8]}"#, 128.0),
            (r#"{"gamma":[128,0.5]}"#, 128.0),
            (r#"{"zipf":[2,0]}"#, 1.5),
        ] {
            let (count, mut rng) = (count(json), Rng::new(4));
            let sum: f64 = (0..100_000).map(|_| f64::from(count.draw(&mut rng))).sum();
            assert!((sum / 1e5 / mean - 1.0).abs() < 0.02, "{json}: {}", sum / 1e5);
            let written = serde_json::to_value(count).unwrap();
            assert_eq!(TokenCount::parse("t", &written).unwrap(), count, "{json}");
        }
        let (bounded, mut rng) =
            (count(r#"{"lognormal":[128,2],"min":10,"max":200}"#), Rng::new(1));
        assert!((0..10_000).all(|_| (10..=200).contains(&bounded.draw(&mut rng))));
    }

    #[test]
    fn what_is_no_number_of_tokens_says_what_is() {
        for (json, want) in [
            ("-1", "arrivals.tokens_out: `-1` is not a whole number from 0 to 16777216"),
            ("{}", "arrivals.tokens_out: give a number, or exactly one distribution"),
            (
                r#"{"lognorm":[1,1]}"#,
                "arrivals.tokens_out: `lognorm` is unknown; did you mean `lognormal`?",
            ),
            (r#"{"lognormal":128}"#, "arrivals.tokens_out: lognormal: `128` is not [mean, sigma]"),
            (r#"{"uniform":[5,2]}"#, "arrivals.tokens_out: uniform: `[5,2]` is not [first, last]"),
            (
                r#"{"exponential":1,"min":9,"max":2}"#,
                "arrivals.tokens_out: min = 9 is above max = 2",
            ),
        ] {
            let value = serde_json::from_str(json).unwrap();
            let error = TokenCount::parse("tokens_out", &value).unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}\n{want}");
        }
    }
}
