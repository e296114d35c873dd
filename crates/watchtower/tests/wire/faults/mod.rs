//! Faults around a server that has clients: signals, no descriptors, a clock that jumps, a network
//! that loses and delays, clients that vanish and return all at once, and floods of every kind
//! together.

mod clock;
mod descriptors;
mod floods;
mod network;
mod pausing;
mod refusals;
mod stopping;
mod storm;
