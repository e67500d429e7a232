//! Turns: progress, failure, and the exit of the app-server during a turn.

mod cut;
mod life;
mod resume;
mod wire;
