//! A program that patgate starts: found when the configuration is read, and one that nobody else can replace.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::super::{
    disk::{self, Base},
    parse::Item,
};

/// Where programs are looked up: never where the environment says.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const OTHERS: u32 = 0o002;
const GROUP: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// The path of the program that an item names. No message shows the name where it may be something else, such as a
/// secret in the wrong place.
pub(super) fn program(item: &Item<'_>, base: &Base) -> Option<PathBuf> {
    let written = item.string()?;
    let found = if written.contains('/') { Some(base.resolve(written)) } else { look_up(written) };
    let Some(path) = found else {
        item.problem(format!("names no program in {PATH}; write its path"));
        return None;
    };
    let judged = item.check(judge(&path))?;
    if let Some(doubt) = judged {
        item.warning(doubt);
    }
    Some(path)
}

fn look_up(name: &str) -> Option<PathBuf> {
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|about| about.is_file() && about.mode() & 0o111 != 0);
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(executable)
}

/// Whether somebody else could put another program there: an error where anybody can, a warning where some can.
fn judge(path: &Path) -> Result<Option<String>, String> {
    let right = "write the path of a program";
    let wrong = |error: std::io::Error| format!("can't be started ({}); {right}", disk::reason(&error));
    let real = fs::canonicalize(path).map_err(wrong)?;
    let about = fs::metadata(&real).map_err(wrong)?;
    if !about.is_file() || about.mode() & 0o111 == 0 {
        return Err(format!("is no program: not an executable file; {right}"));
    }
    let shown = real.display();
    if about.mode() & OTHERS != 0 {
        return Err(format!("anybody can write {shown}, which patgate would start; run: chmod o-w {shown}"));
    }
    if !is_trusted(&about) {
        return Err(format!(
            "{shown} belongs to another user (id {}), who can change it; patgate starts programs of root's and of its \
             own user",
            about.uid()
        ));
    }
    let mut doubt = doubt(&real, &about);
    // The way to the link counts as much as the way to what it leads to.
    for folder in path.ancestors().chain(real.ancestors()).skip(1) {
        let Ok(about) = fs::metadata(folder) else { continue };
        let shown = folder.display();
        if about.is_dir() && about.mode() & OTHERS != 0 && about.mode() & STICKY == 0 {
            return Err(format!(
                "anybody can replace the program, for anybody can write in {shown}; run: chmod o-w {shown}"
            ));
        }
        doubt = doubt.or_else(|| self::doubt(folder, &about));
    }
    Ok(doubt)
}

fn is_trusted(about: &Metadata) -> bool {
    about.uid() == 0 || about.uid() == rustix::process::geteuid().as_raw()
}

fn doubt(path: &Path, about: &Metadata) -> Option<String> {
    let shown = path.display();
    if about.mode() & GROUP != 0 && about.gid() != 0 && about.mode() & STICKY == 0 {
        return Some(format!(
            "the group with the id {} can write {shown}, and so replace the program that patgate starts; if that is not \
             meant, run: chmod g-w {shown}",
            about.gid()
        ));
    }
    if !is_trusted(about) {
        return Some(format!(
            "{shown} belongs to another user (id {}), who can replace the program that patgate starts",
            about.uid()
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_program_that_anybody_can_replace_is_refused() {
        let desk = tempfile::tempdir().unwrap();
        let folder = desk.path().join("bin");
        fs::create_dir(&folder).unwrap();
        let (path, link) = (folder.join("helper"), desk.path().join("link"));
        fs::write(&path, "#!/bin/sh\n").unwrap();
        symlink(&path, &link).unwrap();
        for (mode, of_folder, verdict) in [
            (0o755, 0o755, Ok(())),
            (0o700, 0o700, Ok(())),
            (0o644, 0o755, Err("not an executable file")),
            (0o757, 0o755, Err("anybody can write")),
            (0o755, 0o777, Err("anybody can replace")),
            (0o755, 0o1777, Ok(())),
        ] {
            set(&path, mode);
            set(&folder, of_folder);
            for way in [&path, &link] {
                match (judge(way), verdict) {
                    (Ok(None), Ok(())) => {}
                    (Err(why), Err(part)) if why.contains(part) => {}
                    other => panic!("{mode:o} {of_folder:o}: {other:?}"),
                }
            }
        }
        assert!(judge(&folder).unwrap_err().contains("is no program"));
        assert!(judge(&folder.join("none")).unwrap_err().contains("no such file"));
    }

    #[test]
    fn a_name_is_looked_up_in_fixed_places() {
        assert_eq!(look_up("sh").unwrap().file_name().unwrap(), "sh");
        assert_eq!(look_up("no-such-program-at-all"), None);
    }
}
