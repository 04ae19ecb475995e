//! What was typed, read into what is true.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256};

use super::{
    Client, Config, Problems, Rule, RuleClients, RuleVerdict, clients, disk::Base, expects, include, network,
    notes::Notes, parse::Fields, rules, sections, text::Text, vaults,
};

/// Reads a configuration with all its includes.
///
/// # Errors
/// Every problem there is, at once.
pub fn read(path: &Path) -> Result<Config, Problems> {
    let notes = Notes::default();
    let config = gather(path, &notes);
    let (problems, warnings, sources) = notes.into_parts();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { sources, warnings, ..config }),
        _ => Err(Problems(problems)),
    }
}

/// The files whose content a configuration depends on now, as far as it can be read: what [`Config::sources`]
/// holds, also for a configuration that has problems. Patterns of `include` are looked up anew, so a file that was
/// added, or removed, shows.
#[must_use]
pub fn sources(path: &Path) -> Vec<PathBuf> {
    let notes = Notes::default();
    drop(gather(path, &notes));
    notes.into_parts().2
}

fn gather(path: &Path, notes: &Notes) -> Option<Config> {
    let file = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
    let base = Base(parent(&file));

    let main = include::text(&file, path.to_path_buf(), notes, None)?;
    let document = main.parse(notes);
    let root = Fields::of_document(&document, &main, notes);
    let texts = include::files(&root, &file, &base, &parent(path), notes);
    let documents: Vec<_> = texts.iter().map(|text| (text.parse(notes), text)).collect();
    let mut files = vec![root];
    files.extend(documents.iter().map(|(document, text)| Fields::of_document(document, text, notes)));

    let clients = clients::clients(&files);
    let config = files.first().and_then(|root| whole(root, &files, clients, file, &base));
    let hash = hash(&main, &texts, &parent(path));
    let mut files = files.into_iter();
    files.next().into_iter().for_each(Fields::finish);
    files.for_each(Fields::finish_included);
    config.map(|config| Config { hash, ..config })
}

/// Everything but what comes from the notes. `None` where a part is missing, which is noted.
fn whole(
    root: &Fields<'_>,
    files: &[Fields<'_>],
    clients: vaults::Named<Arc<Client>>,
    file: PathBuf,
    base: &Base,
) -> Option<Config> {
    let public_url = root
        .required("public-url", "write the URL that clients use, such as \"https://patgate.corp.example\"")
        .and_then(|item| network::public_url(&item));
    let workers = root.optional("workers").and_then(|item| item.count(1..=1_024));
    let listeners = network::listeners(root, public_url.as_ref(), base);
    let admin = network::admin(root, &listeners);
    let audit = sections::audit(root, base);
    let limits = sections::limits(root);
    let upstream = network::upstream(root, base);
    let outbound = network::outbound(root);
    let vaults = vaults::vaults(root, base);
    let credentials = vaults::credentials(root, &vaults, base);
    let (rules, names) = rules::rules(files, &clients, &credentials);
    let expects = expects::expects(files, &names);
    unused(root, files, &rules);
    Some(Config {
        file,
        sources: Vec::new(),
        hash: [0; 32],
        public_url: public_url?,
        workers: workers
            .and_then(|workers| usize::try_from(workers).ok())
            .and_then(NonZeroUsize::new)
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN),
        listeners,
        admin,
        audit: audit?,
        limits,
        upstream,
        outbound,
        vaults: vaults.into_complete(),
        credentials: credentials.into_complete(),
        clients: clients.into_complete(),
        rules,
        expects,
        warnings: Vec::new(),
    })
}

/// Warns of clients and credentials that no rule names: it was probably meant to.
fn unused(root: &Fields<'_>, files: &[Fields<'_>], rules: &[Rule]) {
    let allowed: BTreeSet<&str> = rules
        .iter()
        .filter_map(|rule| match &rule.verdict {
            RuleVerdict::Allow(_, credentials) => Some(credentials.iter().map(|one| &*one.name)),
            RuleVerdict::Deny(_) => None,
        })
        .flatten()
        .collect();
    for (name, item) in root.named("credential") {
        if !allowed.contains(&*name) {
            item.warning("no rule uses this credential; name it in one, or remove it");
        }
    }
    let mut used = BTreeSet::<&str>::new();
    for rule in rules {
        match &rule.clients {
            RuleClients::Any => return,
            RuleClients::Named(names) => used.extend(names.iter().map(|name| &**name)),
        }
    }
    for (name, item) in files.iter().flat_map(|file| file.named("client")) {
        if !used.contains(&*name) {
            item.warning("no rule names this client, so it may do nothing; name it in one, or remove it");
        }
    }
}

/// Names (from the folder of the main file on, so that it may move) and contents, each with its length before it,
/// so that no two configurations read the same.
fn hash(main: &Text, included: &[Text], folder: &Path) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in std::iter::once(main).chain(included) {
        let name = text.file().strip_prefix(folder).unwrap_or(text.file()).as_os_str().as_bytes();
        for part in [name, text.content.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
