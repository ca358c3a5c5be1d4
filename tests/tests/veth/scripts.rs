//! The packet scripts of `tests/scripts`, each against this kernel and against a shard.

use std::path::{Path, PathBuf};
use std::{fs, io};

use wirestack_tests::runner::{Case, Outcome, patient, require_program, root_test_of, test, test_of};
use wirestack_tests::script::{KernelSubject, Script, ShardSubject, SubjectKind, run};
use wirestack_tests::tidy::repository;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let mut cases = vec![test("scripts::there_are_some", there_are_some)];
    // A folder that cannot be read is told by the case above.
    for path in scripts().unwrap_or_default() {
        let name = path.with_extension("");
        let folder = repository().join(FOLDER);
        let name = name.strip_prefix(&folder).unwrap_or(&name).display().to_string().replace('/', "::");
        let shard_path = path.clone();
        cases.push(patient(test_of(format!("scripts::{name}::shard"), move || on_shard(&shard_path))));
        let on_kernel = move || on_kernel(&path);
        let kernel_cases = root_test_of(format!("scripts::{name}::kernel"), on_kernel);
        cases.push(patient(require_program("ip", require_program("ss", kernel_cases))));
    }
    cases
}

/// Below the root of the repository.
const FOLDER: &str = "tests/scripts";

/// Of all shards: what is drawn may be anything, and is the same in every run.
const SEED: u64 = 7;

/// All scripts, in the order of their names.
fn scripts() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![repository().join(FOLDER)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "script") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn there_are_some() -> Outcome {
    let found = scripts()?;
    assert!(found.len() > 300, "{} scripts in {FOLDER}", found.len());
    Ok(())
}

fn on_shard(path: &Path) -> Outcome {
    let script = Script::load(path).map_err(|error| error.to_string())?;
    if script.skip_reason(SubjectKind::Shard).is_some() {
        return Ok(());
    }
    run(&script, &mut ShardSubject::new(&script.setup, SEED)?)?;
    let on_offloads = run(&script, &mut ShardSubject::with_offloads(&script.setup, SEED)?);
    Ok(on_offloads.map_err(|failure| format!("on a device with offloads: {failure}"))?)
}

fn on_kernel(path: &Path) -> Outcome {
    let script = Script::load(path).map_err(|error| error.to_string())?;
    // The reason is in the script.
    if script.skip_reason(SubjectKind::Kernel).is_some() {
        return Ok(());
    }
    let mut kernel = KernelSubject::new(&script.setup)?;
    Ok(run(&script, &mut kernel)?)
}
