//! What can be counted by hand.

use cotenant_profiles::Nanos;
use cotenant_sim::engine::Rules;
use cotenant_sim::metrics::TokenCounts;
use cotenant_sim::scenario::TokenGoals;

use super::model::{requests, rules, step_ns, world};
use crate::common;

fn run(rules: Rules, all: &[(u64, u32, u32, u64)]) -> (cotenant_sim::Report, TokenCounts) {
    let report = common::run(world(rules, None).scenario(vec![requests(all)]), "mps", &[]);
    let tokens = report.tenants[0].tokens.clone().unwrap();
    (report, tokens)
}

#[test]
fn alone_a_request_takes_its_prompt_and_a_step_per_token() {
    let (report, tokens) = run(rules(), &[(0, 20, 5, 0)]);
    let (ttft, tpot) = (step_ns(20, 1, 0), step_ns(0, 0, 1));
    assert_eq!(tokens.ttft_mean(), Some(Nanos(ttft)));
    assert_eq!(tokens.tpot_mean(), Some(Nanos(tpot)));
    assert_eq!(report.tenants[0].latency_mean(), Some(Nanos(ttft + 4 * tpot)));
    assert_eq!((tokens.generated, tokens.prefilled, tokens.steps), (5, 20, 5));
    // 25 tokens, the last of which nobody looks at: six blocks at the most.
    assert_eq!(tokens.most_blocks, 6);
}

#[test]
fn a_long_prompt_is_cut_at_the_budget_and_computed_beside_others() {
    // The second arrives while the first computes its prompt.
    let rules = Rules { max_batched_tokens: 16, ..rules() };
    let (report, tokens) = run(rules, &[(0, 10, 3, 0), (1, 40, 1, 0)]);
    let first = step_ns(10, 1, 0);
    // Two steps of 15 tokens of the prompt beside one that generates, then the last 10 alone.
    let mixed = step_ns(15, 1, 1);
    let second = first + 2 * mixed + step_ns(10, 1, 0) - 1;
    assert_eq!(tokens.ttft_mean(), Some(Nanos((first + second) / 2)));
    assert_eq!(tokens.tpot_mean(), Some(Nanos(mixed)));
    assert_eq!(tokens.steps, 4);
    assert_eq!(report.tenants[0].counts.completed, 2);
}

#[test]
fn without_chunks_a_prompt_waits_for_a_whole_budget() {
    let rules = Rules { max_batched_tokens: 16, chunked_prefill: false, ..rules() };
    let (report, tokens) = run(rules, &[(0, 10, 3, 0), (1, 14, 1, 0), (2, 40, 1, 0)]);
    // The third can never be computed in one step.
    assert_eq!(report.tenants[0].counts.dropped, [("too-long", 1)]);
    let second = step_ns(10, 1, 0) + step_ns(14, 1, 1) - 1;
    assert_eq!(tokens.ttft.quantile(1.0), Some(Nanos(second)));
}

#[test]
fn prompts_before_tokens_where_both_alternate() {
    let rules = Rules { alternate: true, ..rules() };
    let (_, tokens) = run(rules, &[(0, 10, 3, 0), (1, 10, 1, 0)]);
    let [first, next] = [step_ns(10, 1, 0), step_ns(0, 0, 1)];
    assert_eq!(tokens.tpot_mean(), Some(Nanos((first + 2 * next) / 2)));
    assert_eq!(tokens.steps, 4);
}

#[test]
fn what_a_session_has_said_is_not_computed_again() {
    let far = 10_000_000 / 4;
    let all = [(0, 10, 3, 7), (far, 20, 1, 7), (2 * far, 20, 1, 8), (3 * far, 12, 1, 7)];
    let (_, tokens) = run(rules(), &all);
    // 12 tokens in three whole blocks; then 20 in five, of which a prompt of 12 uses two, as its last
    // token is computed in any case.
    assert_eq!(tokens.cached, 12 + 8);
    assert_eq!(tokens.prefilled, 10 + 8 + 20 + 4);
    let off = Rules { prefix_cache: false, ..rules() };
    assert_eq!(run(off, &all).1.cached, 0);
}

#[test]
fn planning_hides_behind_the_step_before_unless_it_is_longer() {
    let overhead = Nanos(700);
    let hidden = Rules { scheduler_overhead: overhead, ..rules() };
    let (_, tokens) = run(hidden, &[(0, 20, 5, 0)]);
    assert_eq!(tokens.ttft_mean(), Some(Nanos(700 + step_ns(20, 1, 0))));
    assert_eq!(tokens.tpot_mean(), Some(Nanos(step_ns(0, 0, 1))));
    let shown = Rules { async_scheduling: false, ..hidden };
    let (_, tokens) = run(shown, &[(0, 20, 5, 0)]);
    assert_eq!(tokens.tpot_mean(), Some(Nanos(700 + step_ns(0, 0, 1))));
}

#[test]
fn a_request_is_good_that_keeps_both_goals() {
    let (ttft, tpot) = (Nanos(step_ns(20, 1, 0)), Nanos(step_ns(0, 0, 1)));
    let good = |goals| {
        let scenario = world(rules(), Some(goals)).scenario(vec![requests(&[(0, 20, 5, 0)])]);
        let report = common::run(scenario, "mps", &[]);
        (report.tenants[0].counts.good, report.tenants[0].attainment())
    };
    assert_eq!(good(TokenGoals { ttft, tpot }), (1, Some(1.0)));
    assert_eq!(good(TokenGoals { ttft: Nanos(ttft.0 - 1), tpot }), (0, Some(0.0)));
    assert_eq!(good(TokenGoals { ttft, tpot: Nanos(tpot.0 - 1) }), (0, Some(0.0)));
}
