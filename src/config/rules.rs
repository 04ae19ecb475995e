//! `[client.*]`, `[[rule]]` and `[[expect]]`: the part that included files may hold.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::{Method, uri::PathAndQuery};
use ipnet::IpNet;

use super::{
    Client, Credential, Expect, Place, Rule, RuleClients, RuleVerdict,
    parse::{Fields, Item, shown},
    suggest, units,
    vaults::{Named, past},
};
use crate::{gate::ActionPattern, policy::Pattern};

/// `[client.*]` of all files.
pub(super) fn clients(files: &[Fields<'_>]) -> Named<Arc<Client>> {
    let mut clients = BTreeMap::<Arc<str>, Option<Arc<Client>>>::new();
    let mut places = HashMap::<Arc<str>, Place>::new();
    let mut networks = HashMap::<IpNet, Arc<str>>::new();
    for (name, item) in files.iter().flat_map(|file| file.named("client")) {
        let client = client(&name, &item, &mut networks).map(Arc::new);
        if let Some(first) = places.get(&name) {
            item.problem(format!("a client of this name stands at {first}; give each a name of its own"));
            continue;
        }
        places.insert(Arc::clone(&name), item.place());
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

/// `[[rule]]` of all files, in order.
pub(super) fn rules(
    files: &[Fields<'_>],
    clients: &Named<Arc<Client>>,
    credentials: &Named<Arc<Credential>>,
) -> (Vec<Rule>, Named<()>) {
    let mut names = BTreeMap::<Arc<str>, Option<()>>::new();
    let mut places = HashMap::<Arc<str>, Place>::new();
    let mut rules = Vec::new();
    for fields in files.iter().flat_map(|file| file.listed("rule")) {
        let named = rule_name(&fields);
        if let Some((item, name)) = &named {
            if let Some(first) = places.get(name) {
                item.problem(format!(
                    "a rule named \"{}\" stands at {first}; give each a name of its own",
                    shown(name)
                ));
            }
            places.entry(Arc::clone(name)).or_insert_with(|| item.place());
            names.insert(Arc::clone(name), Some(()));
        }
        rules.extend(rule(&fields, named.map(|(_, name)| name), clients, credentials));
        fields.finish();
    }
    (rules, Named(names))
}

fn rule_name<'a>(fields: &Fields<'a>) -> Option<(Item<'a>, Arc<str>)> {
    let item = fields.required("name", "write name = \"agents read web\"; refusals and records show it")?;
    let name = item.string()?;
    item.check(units::name(name))?;
    Some((item, name.into()))
}

fn rule(
    fields: &Fields<'_>,
    name: Option<Arc<str>>,
    clients: &Named<Arc<Client>>,
    credentials: &Named<Arc<Credential>>,
) -> Option<Rule> {
    let clients = fields
        .required("clients", "name [client.NAME]s, or write [\"*\"] for any of them")
        .and_then(|item| rule_clients(&item, clients));
    let paths = fields.optional("paths");
    let written_paths = paths.as_ref().and_then(|item| {
        item.array("name paths such as \"/contoso/web/**\", or, in a deny, leave it out to cover everything")
    });
    let patterns: Option<Vec<_>> = written_paths.as_ref().map(|items| {
        items.iter().filter_map(|item| item.check(Pattern::parse(item.string()?))).collect()
    });
    let help = fields.optional("help").and_then(|item| help(&item));
    let until = fields.optional("until").and_then(|item| until(&item));
    let (allow, deny) = (fields.optional("allow"), fields.optional("deny"));
    let credential = fields.optional("credential");
    let verdict = match (allow, deny) {
        (Some(allow), None) => {
            if paths.is_none() && fields.lacks("in") {
                fields.absence("allows without saying where; add paths = [\"/contoso/web/**\"]");
            }
            let actions = actions(&allow);
            match credential {
                Some(item) => {
                    let credential = rule_credential(&item, credentials);
                    if let (Some(credential), Some(paths)) = (credential, &written_paths) {
                        covered(paths, credential);
                    }
                    actions.zip(credential.cloned()).map(|(actions, it)| RuleVerdict::Allow(actions, it))
                }
                None => {
                    fields.absence("allows without a credential; name one with credential = \"NAME\"");
                    None
                }
            }
        }
        (None, Some(deny)) => {
            if let Some(item) = credential {
                item.problem("stands in a rule that denies, which sends none; leave it out");
            }
            actions(&deny).map(RuleVerdict::Deny)
        }
        (Some(_), Some(deny)) => {
            deny.problem("stands beside allow; make two rules of it, the deny above the allow");
            None
        }
        (None, None) => {
            fields.absence("neither allows nor denies; add allow = [\"GET\"] with a credential, or deny = [\"DELETE\"]");
            None
        }
    };
    Some(Rule {
        name: name?,
        clients: clients?,
        paths: patterns.unwrap_or_default(),
        verdict: verdict?,
        help,
        until,
        place: fields.place(),
    })
}

fn rule_clients(item: &Item<'_>, clients: &Named<Arc<Client>>) -> Option<RuleClients> {
    let mut named: Vec<Arc<str>> = Vec::new();
    let mut any = None;
    for item in item.array("name [client.NAME]s, or write [\"*\"] for any of them")? {
        let Some(name) = item.string() else { continue };
        if name == "*" {
            any = Some(item);
        } else if named.iter().any(|known| **known == *name) {
            item.problem(format!("\"{}\" stands here twice; keep one", shown(name)));
        } else {
            clients.find("client", &item, name);
            named.push(name.into());
        }
    }
    match any {
        Some(item) if !named.is_empty() => {
            item.problem("\"*\" is any client and stands beside names; keep \"*\" alone, or the names");
            None
        }
        Some(_) => Some(RuleClients::Any),
        None => Some(RuleClients::Named(named)),
    }
}

fn rule_credential<'a>(
    item: &Item<'_>,
    credentials: &'a Named<Arc<Credential>>,
) -> Option<&'a Arc<Credential>> {
    if item.is_table() {
        item.problem("a table of credentials is not in this version; make a rule for each organization");
        return None;
    }
    credentials.find("credential", item, item.string()?)
}

/// Notes every path into an organization that the credential may not go to: it would be refused every time.
fn covered(paths: &[Item<'_>], credential: &Credential) {
    for item in paths {
        let Some(text) = item.quiet_string() else { continue };
        for organization in organizations_of(text) {
            if !credential.organizations.iter().any(|known| **known == *organization) {
                item.problem(format!(
                    "leads to the organization {organization}, and the credential \"{}\" goes only to {}; add it to \
                     the credential's organizations, or name another credential",
                    shown(&credential.name),
                    credential.organizations.join(", ")
                ));
            }
        }
    }
}

/// The organizations that a pattern names outright, in lower case.
fn organizations_of(pattern: &str) -> Vec<String> {
    const LEGACY: &str = ".visualstudio.com";
    let lower = pattern.to_lowercase();
    let mut segments = lower.split('/').skip(1);
    let first = segments.next().unwrap_or_default();
    let segment = match first.strip_suffix(LEGACY) {
        Some(organization) => organization,
        None if first.contains('.') => segments.next().unwrap_or_default(),
        None => first,
    };
    let alternatives = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(segment);
    alternatives.split(',').filter_map(|name| units::organization(name).ok()).collect()
}

fn actions(item: &Item<'_>) -> Option<Vec<ActionPattern>> {
    let mut found: Vec<ActionPattern> = Vec::new();
    for item in item.array("name actions, such as [\"GET\", \"git:fetch\"]")? {
        let Some(action) = item.string().and_then(|text| item.check(ActionPattern::parse(text))) else {
            continue;
        };
        if found.contains(&action) {
            item.problem("stands here twice; keep one");
        } else {
            found.push(action);
        }
    }
    Some(found)
}

fn help(item: &Item<'_>) -> Option<Arc<str>> {
    const LONGEST: usize = 500;
    let text = item.string()?;
    if text.chars().count() > LONGEST {
        item.problem(format!("is longer than {LONGEST} characters; users read it in a terminal, so shorten it"));
        return None;
    }
    // A refusal's text goes into git's line protocol, where a control character would end it.
    if text.chars().any(char::is_control) {
        item.problem("holds a line break or another control character; write one line");
        return None;
    }
    Some(text.into())
}

fn until(item: &Item<'_>) -> Option<jiff::Timestamp> {
    let moment = item.timestamp()?;
    if past(moment) {
        item.warning(format!("the rule ended on {moment} and is not in force; remove it, or set a later day"));
    }
    Some(moment)
}

/// `[[expect]]` of all files.
pub(super) fn expects(files: &[Fields<'_>], rules: &Named<()>) -> Vec<Expect> {
    let mut expects = Vec::new();
    for fields in files.iter().flat_map(|file| file.listed("expect")) {
        let from = fields.required("from", "write from = \"10.20.1.4\"");
        let from = from.and_then(|item| item.check(units::address(item.string()?)));
        let request = fields.required("request", "write request = \"GET /contoso/_apis/projects\"");
        let request = request.and_then(|item| item.check(request_line(item.string()?)));
        let allowed = fields.required("is", "write is = \"allowed\" or \"refused\"").and_then(|item| {
            match item.string()? {
                "allowed" => Some(true),
                "refused" => Some(false),
                other => {
                    let instead = suggest::instead(other, &["allowed", "refused"]);
                    item.check(Err(format!("\"{}\" is no verdict; {instead}", shown(other))))
                }
            }
        });
        let rule = fields.optional("rule").and_then(|item| {
            let name = item.string()?;
            rules.find("rule", &item, name).map(|()| Arc::from(name))
        });
        let place = fields.place();
        fields.finish();
        let (Some(from), Some((method, target)), Some(allowed)) = (from, request, allowed) else { continue };
        expects.push(Expect { from, method, target, allowed, rule, place });
    }
    expects
}

fn request_line(text: &str) -> Result<(Method, String), String> {
    let right = "write a method and a target, such as GET /contoso/_apis/projects";
    let (method, target) =
        text.split_once(' ').ok_or_else(|| format!("\"{}\" is no request; {right}", shown(text)))?;
    let method = Some(method)
        .filter(|method| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()))
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .ok_or_else(|| format!("\"{}\" is no method; {right}", shown(method)))?;
    let sound = target.starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && target.parse::<PathAndQuery>().is_ok();
    if sound {
        return Ok((method, target.into()));
    }
    Err(format!("\"{}\" is no target as a client sends it; percent-encode it, and {right}", shown(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_tells_the_organizations_it_names() {
        for (pattern, expected) in [
            ("/contoso/web/**", vec!["contoso"]),
            ("/Contoso/**", vec!["contoso"]),
            ("/dev.azure.com/contoso/**", vec!["contoso"]),
            ("/contoso.visualstudio.com/web/**", vec!["contoso"]),
            ("/pkgs.dev.azure.com/contoso/_packaging/**", vec!["contoso"]),
            ("/{contoso,fabrikam}/**", vec!["contoso", "fabrikam"]),
            ("/*/web/**", vec![]),
            ("/con*/web/**", vec![]),
            ("/**", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(organizations_of(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn a_request_is_a_method_and_a_target() {
        let (method, target) = request_line("GET /contoso/_apis/projects?api-version=7.1").unwrap();
        assert_eq!((method, target.as_str()), (Method::GET, "/contoso/_apis/projects?api-version=7.1"));
        for text in ["GET", "GET  /contoso", "get /contoso", "GET contoso", "GET /a b", "GET /a#b", "GET /ä", " /a"]
        {
            assert!(request_line(text).is_err(), "{text}");
        }
    }
}
