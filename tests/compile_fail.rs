//! What must not compile: steps in another order, and permissions made outside the modules that give them.
//!
//! `in_order.rs` compiles; each two neighbours of its steps are swapped in turn, and then it must not. The
//! other files of `tests/compile-fail` name in their first line the error that they must yield. All are
//! compiled by `rustc` against what the build of this very test has made, so that nothing is built twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is to fail where it can't go on"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

/// Where the compiler finds the crate and the one other that the files use.
struct Crates {
    deps: PathBuf,
    patgate: PathBuf,
    tower: PathBuf,
}

impl Crates {
    /// Of all that were ever built here, those against which what is right compiles.
    fn find() -> Self {
        let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let mut last = String::new();
        for patgate in built(&deps, "libpatgate-") {
            for tower in built(&deps, "libtower-") {
                let crates = Self { deps: deps.clone(), patgate: patgate.clone(), tower };
                let output = crates.compile(&cases().join("in_order.rs"));
                if output.status.success() {
                    return crates;
                }
                last = rendered(&output);
            }
        }
        panic!("the steps in their order do not compile:\n{last}");
    }

    fn compile(&self, file: &Path) -> Output {
        let external = |name: &str, path: &Path| format!("--extern={name}={}", path.display());
        let out = tempfile::tempdir().unwrap();
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "--error-format=json"])
            .arg("--cap-lints=allow")
            .arg(format!("--out-dir={}", out.path().display()))
            .arg(format!("-Ldependency={}", self.deps.display()))
            .args([external("patgate", &self.patgate), external("tower", &self.tower)])
            .arg(file)
            .output()
            .expect("rustc runs")
    }
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile-fail")
}

/// The libraries of that name, the newest first.
fn built(deps: &Path, name: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(name) && path.extension().is_some_and(|extension| extension == "rlib")
    };
    let mut found: Vec<PathBuf> =
        fs::read_dir(deps).unwrap().map(|entry| entry.unwrap().path()).filter(is_one).collect();
    found.sort_by_key(|path| {
        fs::metadata(path).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    });
    found.reverse();
    found
}

/// The codes of a compilation's errors.
fn codes(output: &Output) -> BTreeSet<String> {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["level"] == "error")
        .filter(|message| !message["message"].as_str().unwrap_or_default().starts_with("aborting due to"))
        .map(|message| message["code"]["code"].as_str().unwrap_or("no code").to_owned())
        .collect()
}

/// The errors as people read them.
fn rendered(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["rendered"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn two_steps_that_are_swapped_do_not_compile() {
    let crates = Crates::find();
    let in_order = fs::read_to_string(cases().join("in_order.rs")).unwrap();
    let lines: Vec<&str> = in_order.lines().collect();
    let is_step = |n: &usize| lines[*n].contains("= stage(");
    let steps: Vec<usize> = (0..lines.len()).filter(is_step).collect();
    assert_eq!(steps.len(), STEPS, "the steps of in_order.rs");
    let folder = tempfile::tempdir().unwrap();
    for pair in steps.windows(2) {
        let mut swapped = lines.clone();
        swapped.swap(pair[0], pair[1]);
        let file = folder.path().join("swapped.rs");
        fs::write(&file, swapped.join("\n")).unwrap();
        let output = crates.compile(&file);
        let found = codes(&output);
        assert!(
            !found.is_empty() && found.iter().all(|code| OTHER_TYPE.contains(&&**code)),
            "{} after {}: {found:?}\n{}",
            lines[pair[1]].trim(),
            lines[pair[0]].trim(),
            rendered(&output)
        );
    }
}

/// A step, or the service at the end, takes something else than what the step before it gives.
const OTHER_TYPE: &[&str] = &["E0277", "E0631"];

/// From `vet` to `arm`.
const STEPS: usize = 6;

#[test]
fn permissions_are_not_made_outside_the_modules_that_give_them() {
    let crates = Crates::find();
    for name in ["permitted.rs", "recorded.rs", "armed.rs"] {
        let file = cases().join(name);
        let text = fs::read_to_string(&file).unwrap();
        let expected = text.strip_prefix("//! ").and_then(|text| text.split_once(':'));
        let (expected, _) = expected.expect("the first line names the error");
        let output = crates.compile(&file);
        assert_eq!(codes(&output), [expected.to_owned()].into(), "{name}:\n{}", rendered(&output));
    }
}
