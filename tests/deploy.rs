//! The deployment files are what their readers (systemd, Kubernetes, Docker, cargo-deny) take, and
//! agree with each other and with patgate's own defaults.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{net::SocketAddr, time::Duration};

use patgate::config::Limits;
use saphyr::{LoadableYamlNode, Yaml};

const SERVICE: &str = include_str!("../deploy/systemd/patgate.service");
const SOCKET: &str = include_str!("../deploy/systemd/patgate.socket");
const KUBERNETES: &str = include_str!("../deploy/kubernetes/patgate.yaml");
const DOCKERFILE: &str = include_str!("../Dockerfile");
const DENY: &str = include_str!("../deny.toml");

/// How long a stop may take by patgate's defaults.
fn longest_stop() -> Duration {
    let limits = Limits::default();
    limits.drain_delay + limits.drain
}

mod systemd {
    use super::*;

    /// Section, key and value of each line, in order. Panics at what systemd would not read.
    fn lines(unit: &'static str) -> Vec<(&'static str, &'static str, &'static str)> {
        let (mut section, mut lines) = ("", Vec::new());
        for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.strip_suffix(']').unwrap_or_else(|| panic!("not a section: {line}"));
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("not a setting: {line}"));
            assert!(!section.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric()), "{line}");
            assert_eq!((key, value), (key.trim(), value.trim()), "spaces: {line}");
            assert!(!value.ends_with('\\'), "continued: {line}");
            lines.push((section, key, value));
        }
        lines
    }

    fn values(unit: &'static str, section: &str, key: &str) -> Vec<&'static str> {
        let ours = |(s, k, v): (&str, &str, &'static str)| (s == section && k == key).then_some(v);
        lines(unit).into_iter().filter_map(ours).collect()
    }

    #[test]
    fn the_service_can_do_nothing_but_serve() {
        for (key, value) in [
            ("AmbientCapabilities", ""),
            ("CapabilityBoundingSet", ""),
            ("LimitCORE", "0"),
            ("LimitMEMLOCK", "64M"),
            ("LockPersonality", "yes"),
            ("MemoryDenyWriteExecute", "yes"),
            ("MemorySwapMax", "0"),
            ("NoNewPrivileges", "yes"),
            ("PrivateDevices", "yes"),
            ("PrivateTmp", "yes"),
            ("PrivateUsers", "yes"),
            ("ProtectHome", "yes"),
            ("ProtectKernelTunables", "yes"),
            ("ProtectProc", "invisible"),
            ("ProtectSystem", "strict"),
            ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
            ("RestrictNamespaces", "yes"),
            ("SystemCallArchitectures", "native"),
            ("UMask", "0077"),
            ("User", "patgate"),
        ] {
            assert_eq!(values(SERVICE, "Service", key), [value], "{key}");
        }
        assert_eq!(values(SERVICE, "Service", "SystemCallFilter"), ["@system-service", "~@privileged"]);
    }

    #[test]
    fn the_service_tells_when_it_is_ready_and_is_given_time_to_stop() {
        assert_eq!(values(SERVICE, "Service", "Type"), ["notify"]);
        assert_eq!(values(SERVICE, "Service", "ExecReload"), ["/bin/kill -HUP $MAINPID"]);
        let seconds = values(SERVICE, "Service", "TimeoutStopSec")[0].parse().unwrap();
        assert!(Duration::from_secs(seconds) > longest_stop());
    }

    #[test]
    fn the_key_is_handed_over_under_the_name_that_the_comment_says() {
        let credential = values(SERVICE, "Service", "LoadCredential")[0];
        let (name, path) = credential.split_once(':').unwrap();
        assert!(path.starts_with("/etc/patgate/"));
        assert!(SERVICE.contains(&format!("#   key-credential = \"{name}\"")));
        assert_eq!(values(SERVICE, "Service", "StateDirectory"), ["patgate"]);
        assert_eq!(values(SERVICE, "Service", "RuntimeDirectory"), ["patgate"]);
        assert!(SERVICE.contains("#   socket = \"/run/patgate/"));
        assert!(SERVICE.contains("#   folder = \"/var/lib/patgate/"));
    }

    #[test]
    fn the_socket_belongs_to_the_service() {
        assert_eq!(values(SERVICE, "Service", "Sockets"), ["patgate.socket"]);
        assert_eq!(values(SERVICE, "Install", "Also"), ["patgate.socket"]);
        for address in values(SOCKET, "Socket", "ListenStream") {
            address.parse::<SocketAddr>().unwrap();
        }
        assert_eq!(values(SOCKET, "Install", "WantedBy"), ["sockets.target"]);
    }
}

mod kubernetes {
    use super::*;

    fn documents() -> Vec<Yaml<'static>> {
        Yaml::load_from_str(KUBERNETES).unwrap()
    }

    /// The one document of a kind.
    fn document(kind: &str) -> Yaml<'static> {
        let mut all = documents().into_iter().filter(|d| text(d, "kind") == kind);
        let one = all.next().unwrap_or_else(|| panic!("no {kind}"));
        assert!(all.next().is_none(), "more than one {kind}");
        one
    }

    /// What stands at a dotted path; numbers are positions in a list. Panics where nothing stands.
    fn at<'a>(node: &'a Yaml<'static>, path: &str) -> &'a Yaml<'static> {
        path.split('.').fold(node, |node, key| {
            let child = match key.parse::<usize>() {
                Ok(position) => node.as_vec().and_then(|list| list.get(position)),
                Err(_) => node.as_mapping_get(key),
            };
            child.unwrap_or_else(|| panic!("{path}: no {key}"))
        })
    }

    fn text<'a>(node: &'a Yaml<'static>, path: &str) -> &'a str {
        at(node, path).as_str().unwrap_or_else(|| panic!("{path} is no text"))
    }

    fn number(node: &Yaml<'static>, path: &str) -> i64 {
        at(node, path).as_integer().unwrap_or_else(|| panic!("{path} is no number"))
    }

    fn names(node: &Yaml<'static>, path: &str) -> Vec<String> {
        at(node, path).as_vec().unwrap().iter().map(|item| text(item, "name").to_owned()).collect()
    }

    fn configuration() -> toml::Table {
        let map = document("ConfigMap");
        let data = at(&map, "data").as_mapping_get("patgate.toml").unwrap();
        data.as_str().unwrap().parse().unwrap()
    }

    #[test]
    fn every_document_says_what_it_is() {
        let kinds: Vec<String> = documents()
            .iter()
            .map(|document| {
                assert!(!text(document, "apiVersion").is_empty());
                assert!(text(document, "metadata.name").starts_with("patgate"));
                text(document, "kind").to_owned()
            })
            .collect();
        assert_eq!(kinds, ["ConfigMap", "Service", "Service", "PodDisruptionBudget", "StatefulSet"]);
    }

    #[test]
    fn the_pod_meets_the_restricted_standard() {
        let set = document("StatefulSet");
        let pod = at(&set, "spec.template.spec");
        assert_eq!(at(pod, "securityContext.runAsNonRoot").as_bool(), Some(true));
        assert!(number(pod, "securityContext.runAsUser") > 0);
        assert_eq!(number(pod, "securityContext.fsGroup"), number(pod, "securityContext.runAsGroup"));
        assert_eq!(text(pod, "securityContext.seccompProfile.type"), "RuntimeDefault");
        assert_eq!(at(pod, "automountServiceAccountToken").as_bool(), Some(false));
        let own = at(pod, "containers.0.securityContext");
        assert_eq!(at(own, "allowPrivilegeEscalation").as_bool(), Some(false));
        assert_eq!(at(own, "readOnlyRootFilesystem").as_bool(), Some(true));
        assert_eq!(text(own, "capabilities.drop.0"), "ALL");
    }

    #[test]
    fn the_configuration_fits_its_pod() {
        let (set, configuration) = (document("StatefulSet"), configuration());
        let pod = at(&set, "spec.template.spec");
        let listen = &configuration["listen"][0];
        let address: SocketAddr = listen["address"].as_str().unwrap().parse().unwrap();
        assert_eq!(number(pod, "containers.0.ports.0.containerPort"), i64::from(address.port()));

        let public = configuration["public-url"].as_str().unwrap();
        let probe = at(pod, "containers.0.readinessProbe.httpGet");
        assert_eq!(format!("https://{}", text(probe, "httpHeaders.0.value")), public);
        assert_eq!(text(probe, "path"), "/_patgate/ready");

        let mounts = at(pod, "containers.0.volumeMounts").as_vec().unwrap();
        for path in [
            &listen["certificate"],
            &listen["key"],
            &configuration["audit"]["folder"],
            &configuration["vault"]["local"]["path"],
            &configuration["vault"]["local"]["key"],
        ] {
            let path = path.as_str().unwrap();
            let below = |mount: &Yaml<'static>| path.starts_with(&format!("{}/", text(mount, "mountPath")));
            assert!(mounts.iter().any(below), "{path} lies on no volume");
        }
        assert!(mounts.iter().all(|mount| mount.as_mapping_get("subPath").is_none()));
    }

    #[test]
    fn every_volume_that_is_mounted_is_there() {
        let set = document("StatefulSet");
        let mut volumes = names(&set, "spec.template.spec.volumes");
        volumes.push(text(&set, "spec.volumeClaimTemplates.0.metadata.name").to_owned());
        assert_eq!(names(&set, "spec.template.spec.containers.0.volumeMounts"), volumes);
    }

    #[test]
    fn a_stop_is_given_its_time_and_addresses_stay_the_clients_own() {
        let set = document("StatefulSet");
        let seconds = number(&set, "spec.template.spec.terminationGracePeriodSeconds");
        assert!(Duration::from_secs(seconds.try_into().unwrap()) > longest_stop());
        let all = documents();
        let balanced: Vec<_> = all.iter().filter(|d| text(d, "kind") == "Service").collect();
        assert_eq!(text(balanced[0], "spec.externalTrafficPolicy"), "Local");
        assert_eq!(text(balanced[1], "metadata.name"), text(&set, "spec.serviceName"));
    }
}

mod image {
    use super::*;

    /// Instructions with their arguments, comments taken out, continued lines joined.
    fn instructions() -> Vec<(String, String)> {
        let lines: Vec<&str> = DOCKERFILE.lines().filter(|line| !line.starts_with('#')).collect();
        let joined = lines.join("\n").replace("\\\n", " ");
        let split = |line: &str| {
            let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no arguments: {line}"));
            (word.to_owned(), rest.trim().to_owned())
        };
        joined.lines().filter(|line| !line.trim().is_empty()).map(split).collect()
    }

    #[test]
    fn the_image_is_one_binary_that_is_not_root() {
        let all = instructions();
        let last = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
        let (before, stage) = all.split_at(last);
        assert!(before[0].0 == "FROM" && before[0].1.ends_with(" AS build"));
        assert_eq!(stage[0].1, "scratch");

        let of =
            |word: &str| stage.iter().filter(|(w, _)| w == word).map(|(_, a)| a.as_str()).collect::<Vec<_>>();
        assert!(of("RUN").is_empty(), "there is no shell");
        assert!(of("COPY").iter().all(|arguments| arguments.starts_with("--from=build ")));
        let [user] = of("USER")[..] else { panic!("not one USER") };
        let ids: Vec<u32> = user.split(':').map(|id| id.parse().unwrap()).collect();
        assert!(ids.len() == 2 && ids.iter().all(|id| *id > 0), "{user}");
        for word in ["ENTRYPOINT", "CMD", "VOLUME"] {
            let [arguments] = of(word)[..] else { panic!("not one {word}") };
            let words: Vec<String> = serde_json::from_str(arguments).unwrap();
            assert!(!words.is_empty(), "{word} is not in the exec form");
        }
    }

    #[test]
    fn every_instruction_is_one_of_dockers() {
        let known = [
            "FROM",
            "RUN",
            "ENV",
            "WORKDIR",
            "COPY",
            "USER",
            "VOLUME",
            "EXPOSE",
            "STOPSIGNAL",
            "ENTRYPOINT",
            "CMD",
        ];
        for (word, _) in instructions() {
            assert!(known.contains(&word.as_str()), "{word}");
        }
    }
}

#[test]
fn one_tls_provider_and_one_registry_are_allowed() {
    let deny: toml::Table = DENY.parse().unwrap();
    let banned: Vec<&str> =
        deny["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    for name in ["openssl", "openssl-sys", "native-tls", "ring"] {
        assert!(banned.contains(&name), "{name}");
    }
    assert_eq!(deny["sources"]["unknown-registry"].as_str(), Some("deny"));
    assert_eq!(deny["sources"]["unknown-git"].as_str(), Some("deny"));
}
