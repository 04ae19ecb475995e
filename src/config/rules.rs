//! `[[rule]]`: who may do what, where, with which credential.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Client, Credential, Credentials, Order, Place, Rule, RuleClients, RuleVerdict,
    parse::{Fields, Item},
    suggest,
    text::shown,
    units,
    vaults::{Named, past},
};
use crate::{gate::ActionPattern, policy::Pattern};

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
        let called = rule_name(&fields);
        if let Some((item, name)) = &called {
            if let Some(first) = places.get(name) {
                item.problem(format!(
                    "a rule named \"{}\" stands at {first}; give each a name of its own",
                    shown(name)
                ));
            }
            places.entry(Arc::clone(name)).or_insert_with(|| item.place());
            names.insert(Arc::clone(name), Some(()));
        }
        rules.extend(rule(&fields, called.map(|(_, name)| name), clients, credentials));
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
    let right = "name paths such as \"/contoso/web/**\", or, in a deny, leave it out to cover everything";
    let patterns: Vec<_> = fields
        .optional("paths")
        .and_then(|item| item.array(right))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|item| Some((item.check(Pattern::parse(item.string()?))?, item)))
        .collect();
    let help = fields.optional("help").and_then(|item| help(&item));
    let until = fields.optional("until").and_then(|item| until(&item));
    let verdict = verdict(fields, &patterns, credentials);
    Some(Rule {
        name: name?,
        clients: clients?,
        paths: patterns.into_iter().map(|(pattern, _)| pattern).collect(),
        verdict: verdict?,
        help,
        until,
        place: fields.place(),
    })
}

fn verdict(
    fields: &Fields<'_>,
    paths: &[(Pattern, Item<'_>)],
    credentials: &Named<Arc<Credential>>,
) -> Option<RuleVerdict> {
    let (credential, order) = (fields.optional("credential"), fields.optional("credential-order"));
    match (fields.optional("allow"), fields.optional("deny")) {
        (Some(allow), None) => {
            if fields.lacks("paths") && fields.lacks("in") {
                fields.absence("allows without saying where; add paths = [\"/contoso/web/**\"]");
            }
            let actions = actions(&allow);
            if credential.is_none() {
                fields.absence("allows without a credential; name one with credential = \"NAME\"");
            }
            let credentials = rule_credentials(&credential?, order.as_ref(), credentials)?;
            covered(paths, &credentials.first);
            Some(RuleVerdict::Allow(actions?, Arc::new(credentials)))
        }
        (None, Some(deny)) => {
            for item in [credential, order].into_iter().flatten() {
                item.problem("stands in a rule that denies, which sends none; leave it out");
            }
            actions(&deny).map(RuleVerdict::Deny)
        }
        (Some(_), Some(deny)) => {
            deny.problem("stands beside allow; make two rules of it, the deny above the allow");
            None
        }
        (None, None) => {
            fields.absence(
                "neither allows nor denies; add allow = [\"GET\"] with a credential, or deny = [\"DELETE\"]",
            );
            None
        }
    }
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

fn rule_credentials(
    item: &Item<'_>,
    order: Option<&Item<'_>>,
    credentials: &Named<Arc<Credential>>,
) -> Option<Credentials> {
    if item.is_table() {
        item.problem("a table of credentials is not in this version; make a rule for each organization");
        return None;
    }
    let find = |item: &Item<'_>| credentials.find("credential", item, item.string()?).cloned();
    let (first, others) = if item.is_array() {
        let items = item.array("name one credential, or several that may take each other's place")?;
        let found: Vec<_> = items.iter().map(|item| Some((find(item)?, item))).collect();
        // Every one is looked up, and what is missing noted, before the first `None` ends it.
        let mut found = found.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
        let (first, _) = found.next()?;
        let mut others: Vec<Arc<Credential>> = Vec::new();
        for (other, item) in found {
            if std::iter::once(&first).chain(&others).any(|known| Arc::ptr_eq(known, &other)) {
                item.problem(format!("\"{}\" stands here twice; keep one", shown(&other.name)));
            } else if !is_for_the_same(&first, &other) {
                item.problem(format!(
                    "\"{}\" may not go to the same organizations as \"{}\", so it can't take its place; make a rule \
                     for each",
                    shown(&other.name),
                    shown(&first.name)
                ));
            } else {
                others.push(other);
            }
        }
        (first, others)
    } else {
        (find(item)?, Vec::new())
    };
    let order = match order {
        None => Order::AsWritten,
        Some(order) => match order.string()? {
            "as-written" => Order::AsWritten,
            "rate-budget" => Order::RateBudget,
            other => {
                let instead = suggest::instead(other, &["as-written", "rate-budget"]);
                order.problem(format!("\"{}\" is no order; {instead}", shown(other)));
                return None;
            }
        },
    };
    Some(Credentials { first, others: others.into(), order })
}

fn is_for_the_same(one: &Credential, other: &Credential) -> bool {
    let all = |one: &Credential, other: &Credential| {
        one.organizations.iter().all(|name| other.organizations.contains(name))
    };
    all(one, other) && all(other, one)
}

/// Notes every path into an organization that the credential may not go to: it would be refused every time.
fn covered(paths: &[(Pattern, Item<'_>)], credential: &Credential) {
    for (_, item) in paths {
        let Some(text) = item.string() else { continue };
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
        let Some(text) = item.string() else { continue };
        let Some(action) = item.check(ActionPattern::parse(text)) else { continue };
        if found.contains(&action) {
            item.problem(format!("\"{}\" stands here twice; keep one", shown(text)));
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
        item.problem(format!(
            "is longer than {LONGEST} characters; users read it in a terminal, so shorten it"
        ));
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
        item.warning(format!(
            "the rule ended on {moment} and is not in force; remove it, or set a later day"
        ));
    }
    Some(moment)
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
}
