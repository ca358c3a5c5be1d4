//! The packet scripts of `tests/scripts`, against this kernel.

use std::path::{Path, PathBuf};
use std::{fs, io};

use wirestack_tests::runner::{Case, Outcome, require_program, root_test_of, test};
use wirestack_tests::script::{KernelSubject, Script, SubjectKind, run};
use wirestack_tests::tidy::repository;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let mut cases = vec![test("scripts::there_are_some", there_are_some)];
    // A folder that cannot be read is told by the case above.
    for path in scripts().unwrap_or_default() {
        let name = path.with_extension("");
        let folder = repository().join(FOLDER);
        let name = name.strip_prefix(&folder).unwrap_or(&name).display().to_string().replace('/', "::");
        cases.push(require_program("ip", root_test_of(format!("scripts::{name}"), move || on_kernel(&path))));
    }
    cases
}

/// Below the root of the repository.
const FOLDER: &str = "tests/scripts";

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
    assert!(found.len() > 30, "{} scripts in {FOLDER}", found.len());
    Ok(())
}

fn on_kernel(path: &Path) -> Outcome {
    let script = Script::load(path).map_err(|error| error.to_string())?;
    // The reason is in the script; a shard runs it.
    if script.skip_reason(SubjectKind::Kernel).is_some() {
        return Ok(());
    }
    let mut kernel = KernelSubject::new(&script.setup)?;
    Ok(run(&script, &mut kernel)?)
}
