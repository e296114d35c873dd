//! Makes a script that fails shorter, as long as it fails.

use super::script::{Script, Step};

/// A shorter script that `fails`, too, found within so many runs.
pub(super) fn shrink(script: &Script, runs_max: usize, mut fails: impl FnMut(&Script) -> bool) -> Script {
    let mut shortest = script.clone();
    let mut runs = 0;
    let mut length = shortest.steps.len().div_ceil(2);
    while length > 0 && runs < runs_max {
        let mut was_shortened = false;
        // From the end, so that what is left out has consequences for little.
        let mut end = shortest.steps.len();
        while end > 0 && runs < runs_max {
            let start = end.saturating_sub(length);
            let mut steps: Vec<Step> = shortest.steps[..start].to_vec();
            steps.extend_from_slice(&shortest.steps[end..]);
            let shorter = Script { steps, ..shortest.clone() };
            runs += 1;
            if fails(&shorter) {
                shortest = shorter;
                was_shortened = true;
            }
            end = start.min(shortest.steps.len());
        }
        if length > 1 || !was_shortened {
            length /= 2;
        }
    }
    shortest
}
