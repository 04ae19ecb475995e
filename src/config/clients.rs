//! `[client.*]`: who may call.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Client, Place,
    parse::{Fields, Item},
    text::shown,
    units,
    vaults::Named,
};

/// `[client.*]` of all files.
pub(super) fn clients(files: &[Fields<'_>]) -> Named<Arc<Client>> {
    let mut clients = BTreeMap::<Arc<str>, Option<Arc<Client>>>::new();
    let mut places = HashMap::<Arc<str>, Place>::new();
    let mut networks = HashMap::<IpNet, Arc<str>>::new();
    for (name, item) in files.iter().flat_map(|file| file.named("client")) {
        if let Some(first) = places.get(&name) {
            item.problem(format!("a client of this name stands at {first}; give each a name of its own"));
            continue;
        }
        places.insert(Arc::clone(&name), item.place());
        let client = client(&name, &item, &mut networks).map(Arc::new);
        clients.insert(name, client);
    }
    Named(clients)
}

fn client(name: &Arc<str>, item: &Item<'_>, networks: &mut HashMap<IpNet, Arc<str>>) -> Option<Client> {
    let fields = item.table("write [client.NAME] above its keys")?;
    let addresses = fields.required("addresses", "name its networks, such as [\"10.20.0.0/16\"]");
    let owner = fields.optional("owner").and_then(|item| item.string()).map(Arc::from);
    fields.finish();
    let mut found = Vec::new();
    for item in addresses?.array("name its networks, such as [\"10.20.0.0/16\"]")? {
        let Some(network) = item.string().and_then(|text| item.check(units::network(text))) else { continue };
        if network.prefix_len() == 0 {
            item.warning(format!("{network} is every address there is; name the networks of this client"));
        }
        match networks.get(&network) {
            Some(other) if other == name => {
                item.problem(format!("{network} stands here twice; keep one"));
            }
            Some(other) => {
                item.problem(format!(
                    "{network} is also a network of the client \"{}\", and nothing tells the two apart; give it to \
                     one, or to each a part of it",
                    shown(other)
                ));
            }
            None => {
                networks.insert(network, Arc::clone(name));
                found.push(network);
            }
        }
    }
    Some(Client { name: Arc::clone(name), addresses: found, owner, place: item.place() })
}
