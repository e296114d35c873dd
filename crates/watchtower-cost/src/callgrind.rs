//! Counts the instructions of one piece of work: this program under `valgrind --tool=callgrind`,
//! which counts within one function alone.
//!
//! A process runs one case, in an empty environment and with the C library's portable variants of
//! `memcpy` and the like, so that the count is the same each time and hardly depends on the
//! processor.

use std::env;
use std::hint::black_box;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use watchtower_cost::Work;

/// What callgrind counts within, as it shows the name of [`counted`].
const COUNTED: &str = "*watchtower_cost::callgrind::counted*";

/// The processor's features by which the C library would choose variants.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX_Fast_Unaligned_Load,\
                        -ERMS,-FSRM,-BMI2,-RTM,-MOVBE,-LZCNT,-SSE4_2,-SSSE3";

/// Does the work. A function of its own, so that it has a name, and never a jump to `run`.
#[inline(never)]
pub(crate) fn counted(work: &mut dyn Work) {
    work.run();
    black_box(());
}

/// The instructions of one run of a case.
pub(crate) fn instructions(case: &str) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(env::current_exe()?)
        .args(["run", case])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null())
        .output()
        .context("cannot run valgrind, of the package of that name")?;
    if !output.status.success() {
        bail!("valgrind failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let counts = std::fs::read_to_string(&counts).context("callgrind wrote nothing")?;
    total(&counts).context("callgrind counted nothing")
}

/// The sum in what callgrind wrote; none if it never came to what is counted.
fn total(counts: &str) -> Option<u64> {
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: "))?;
    total.trim().parse().ok().filter(|total| *total > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_and_nothing_is_no_total() {
        assert_eq!(total("events: Ir\nfn=(1) x\n0 7\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("events: Ir\n\ntotals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
