//! Discrete-event simulation of GPU sharing. No IO, no threads, no wall clock: it computes, and
//! cannot fail on checked input.
