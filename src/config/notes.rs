//! What is noted while a configuration is read, and what of it is worth telling.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use super::{Place, Problem};

/// What was found wrong, doubtful or relevant.
#[derive(Debug, Default)]
pub(super) struct Notes {
    problems: RefCell<Vec<Problem>>,
    /// Something is not there: perhaps a mere consequence of a syntax error in the same file.
    absences: RefCell<Vec<Problem>>,
    /// A name leads nowhere: perhaps a mere consequence of a syntax error in any file.
    dangling: RefCell<Vec<Problem>>,
    /// With the last line that is not to be believed.
    syntax: RefCell<Vec<(Problem, usize)>>,
    warnings: RefCell<Vec<Problem>>,
    sources: RefCell<Vec<PathBuf>>,
}

impl Notes {
    pub(super) fn problem(&self, place: Place, key: &str, text: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place, key: key.into(), text: text.into() });
    }

    pub(super) fn absence(&self, place: Place, key: &str, text: impl Into<String>) {
        self.absences.borrow_mut().push(Problem { place, key: key.into(), text: text.into() });
    }

    pub(super) fn warning(&self, place: Place, key: &str, text: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem { place, key: key.into(), text: text.into() });
    }

    pub(super) fn dangling(&self, place: Place, key: &str, text: impl Into<String>) {
        self.dangling.borrow_mut().push(Problem { place, key: key.into(), text: text.into() });
    }

    pub(super) fn syntax(&self, place: Place, last_line: usize, text: String) {
        self.syntax.borrow_mut().push((Problem { place, key: "syntax".into(), text }, last_line));
    }

    /// A file whose content matters.
    pub(super) fn source(&self, file: &Path) {
        let file = file.to_path_buf();
        let mut sources = self.sources.borrow_mut();
        if !sources.contains(&file) {
            sources.push(file);
        }
    }

    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>, Vec<PathBuf>) {
        let mut syntax = self.syntax.into_inner();
        syntax.sort();
        syntax.dedup_by(|(later, later_last), (first, last)| {
            let same = later.place.line == first.place.line && later.place.file == first.place.file;
            *last = if same { (*last).max(*later_last) } else { *last };
            same
        });
        let mut problems = self.problems.into_inner();
        let broken =
            |problem: &Problem| syntax.iter().any(|(error, _)| error.place.file == problem.place.file);
        problems.extend(self.absences.into_inner().into_iter().filter(|problem| !broken(problem)));
        if syntax.is_empty() {
            problems.append(&mut self.dangling.into_inner());
        }
        problems.retain(|problem| {
            let place = &problem.place;
            !syntax.iter().any(|(error, last_line)| {
                (error.place.line..=*last_line).contains(&place.line) && error.place.file == place.file
            })
        });
        problems.extend(syntax.into_iter().map(|(error, _)| error));
        let mut warnings = self.warnings.into_inner();
        for list in [&mut problems, &mut warnings] {
            list.sort();
            list.dedup();
        }
        (problems, warnings, self.sources.into_inner())
    }
}
