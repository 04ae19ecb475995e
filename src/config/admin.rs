//! `[admin]` and `[state]`: who may look, who may change, and where changes are kept.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Admin, AdminSocket, Listen,
    disk::{self, Base},
    network::socket_address,
    parse::{Fields, Item},
    text::shown,
    units, users,
};

/// The longest path that the system takes for a Unix socket, with room for the name it is made under.
const LONGEST: usize = 90;

/// What the kernel says in place of a uid that the user namespace does not have (`kernel.overflowuid`).
const HIDDEN: u32 = 65_534;

/// `[admin]`.
pub(super) fn admin(root: &Fields<'_>, listeners: &[Arc<Listen>], base: &Base) -> Option<Admin> {
    let fields = root.optional("admin")?.table("write [admin] above its keys")?;
    let address = fields.optional("address");
    let socket = fields.optional("socket");
    let admins = fields.optional("admins");
    if address.is_none() && socket.is_none() {
        fields.absence(
            "has neither address nor socket; write address = \"127.0.0.1:9443\", socket = \"/run/patgate/admin.sock\", or both",
        );
    }
    fields.finish();
    if let (Some(admins), None) = (&admins, &socket) {
        admins.problem("counts for the socket alone, and there is none; add socket, or leave it out");
    }
    let address = address.and_then(|item| loopback(&item, listeners));
    let admins = admins.map(|item| uids(&item));
    let socket = socket.and_then(|item| {
        let path = base.path(&item)?;
        if path.as_os_str().len() > LONGEST {
            let text = format!(
                "is longer than the {LONGEST} bytes that a socket's path may have; choose a shorter one"
            );
            item.problem(text);
        }
        Some(AdminSocket { path, admins: admins.unwrap_or_else(own) })
    });
    Some(Admin { address, socket })
}

fn loopback(item: &Item<'_>, listeners: &[Arc<Listen>]) -> Option<SocketAddr> {
    let address = socket_address(item)?;
    if !units::is_loopback(address.ip()) {
        item.problem(format!("{address} is not on loopback; write 127.0.0.1:{}", address.port()));
    }
    if address.port() != 0 && listeners.iter().any(|listen| listen.address == address) {
        item.problem(format!("{address} is also an address of [[listen]]; use another port"));
    }
    Some(address)
}

/// root, and the user that patgate runs as.
fn own() -> Vec<u32> {
    let mut uids = vec![0, rustix::process::geteuid().as_raw()];
    uids.dedup();
    uids
}

fn uids(item: &Item<'_>) -> Vec<u32> {
    let mut uids = Vec::new();
    for item in item.array("write users' names or uids, such as [\"root\", 1001]").unwrap_or_default() {
        let uid = if item.is_integer() {
            item.count(0..=u64::from(u32::MAX - 1)).and_then(|uid| u32::try_from(uid).ok())
        } else {
            item.string().and_then(|name| {
                item.check(users::uid(name).ok_or_else(|| {
                    format!("\"{}\" is no user in /etc/passwd; write another name, or the uid", shown(name))
                }))
            })
        };
        if let Some(uid) = uid {
            if uid == HIDDEN {
                item.problem(format!(
                    "the uid {HIDDEN} is that of every user that a container, or PrivateUsers= of systemd, hides from \
                     patgate; name another"
                ));
            }
            if uids.contains(&uid) {
                item.problem(format!("the user with the uid {uid} stands here twice; keep one"));
            }
            uids.push(uid);
        }
    }
    uids
}

/// The admin socket that a configuration names, whatever else is right or wrong with it: in an emergency nobody should have
/// to mend a rule first, or be able to read a listener's key.
///
/// # Errors
/// The file can't be read as TOML, as a sentence.
pub fn socket_of(file: &Path) -> Result<Option<PathBuf>, String> {
    let at = file.display();
    let text =
        disk::read(file).map_err(|wrong| format!("{at} {wrong}; name the socket itself with --socket"))?;
    let text = String::from_utf8_lossy(&text);
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        format!("{at}: {}; mend it, or name the socket itself with --socket", error.message())
    })?;
    let socket = table.get("admin").and_then(|admin| admin.get("socket")).and_then(toml::Value::as_str);
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    Ok(socket.map(|socket| file.parent().unwrap_or(Path::new("")).join(socket)))
}

/// `[state]`: its folder.
pub(super) fn state(root: &Fields<'_>, base: &Base) -> Option<PathBuf> {
    let fields = root.optional("state")?.table("write [state] above its keys")?;
    let folder = fields.required("folder", "write folder = \"state\"").and_then(|item| base.path(&item));
    fields.finish();
    folder
}
