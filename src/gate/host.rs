//! The hosts of Azure DevOps that requests may go to.
//!
//! The list is closed: no byte of a request ever becomes part of an authority.
//! Source: the hosts of the REST specifications (`vsts-rest-api-specs`) that take an organisation
//! as the first segment of the path.

macro_rules! hosts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $authority:literal, $service:literal;)+) => {
        /// A host of Azure DevOps, from the closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Host {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Host {
            /// Every host there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name, in lower case and without a port: what TLS proves and `Host` says.
            #[must_use]
            pub const fn authority(self) -> &'static str {
                match self { $(Self::$variant => $authority),+ }
            }

            /// The label that the legacy names carry: `{organization}.{label}.visualstudio.com`.
            const fn service(self) -> &'static str {
                match self { $(Self::$variant => $service),+ }
            }
        }
    };
}

hosts! {
    /// `dev.azure.com`: the web, the core interface, git and LFS.
    DevAzure = "dev.azure.com", "";
    /// `vssps.dev.azure.com`: identities, graph, tokens.
    Vssps = "vssps.dev.azure.com", "vssps";
    /// `pkgs.dev.azure.com`: the protocols of the package managers.
    Pkgs = "pkgs.dev.azure.com", "pkgs";
    /// `feeds.dev.azure.com`: the management of feeds.
    Feeds = "feeds.dev.azure.com", "feeds";
    /// `vsrm.dev.azure.com`: classic releases.
    Vsrm = "vsrm.dev.azure.com", "vsrm";
    /// `vsaex.dev.azure.com`: entitlements of members.
    Vsaex = "vsaex.dev.azure.com", "vsaex";
    /// `vstmr.dev.azure.com`: results of tests.
    Vstmr = "vstmr.dev.azure.com", "vstmr";
    /// `artifacts.dev.azure.com`: symbols, artifacts of pipelines.
    Artifacts = "artifacts.dev.azure.com", "artifacts";
    /// `advsec.dev.azure.com`: Advanced Security.
    Advsec = "advsec.dev.azure.com", "advsec";
    /// `auditservice.dev.azure.com`: Azure DevOps' own audit log.
    Auditservice = "auditservice.dev.azure.com", "auditservice";
    /// `almsearch.dev.azure.com`: search.
    Almsearch = "almsearch.dev.azure.com", "almsearch";
    /// `extmgmt.dev.azure.com`: extensions.
    Extmgmt = "extmgmt.dev.azure.com", "extmgmt";
}

const LEGACY: &str = ".visualstudio.com";
/// Names under `visualstudio.com` that are Microsoft's own and no organisation's.
const NO_ORGANIZATION: &[&str] = &["app", "www", "marketplace", "login", "ssh", "vs-ssh", "vsspsext"];

impl Host {
    /// The host of that name, compared without case; a port is not part of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|host| host.authority().eq_ignore_ascii_case(name))
    }

    /// The host and the organisation behind a name of the older form
    /// (`contoso.visualstudio.com`, `contoso.pkgs.visualstudio.com`).
    pub(super) fn legacy(name: &str) -> Option<(Self, &str)> {
        let cut = name.len().checked_sub(LEGACY.len())?;
        let (labels, suffix) = name.split_at_checked(cut)?;
        if !suffix.eq_ignore_ascii_case(LEGACY) {
            return None;
        }
        let (organization, service) = labels.split_once('.').unwrap_or((labels, ""));
        let host = Self::ALL.iter().copied().find(|host| host.service().eq_ignore_ascii_case(service))?;
        let own = |label: &str| label.eq_ignore_ascii_case(organization);
        let is_organization = super::normal::is_organization(organization)
            && !NO_ORGANIZATION.iter().any(|label| own(label))
            && !Self::ALL.iter().any(|host| own(host.service()));
        is_organization.then_some((host, organization))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_by_its_name_alone() {
        for host in Host::ALL {
            assert_eq!(Host::parse(host.authority()), Some(*host));
            assert_eq!(Host::parse(&host.authority().to_uppercase()), Some(*host));
        }
        for name in [
            "",
            "azure.com",
            "evil.dev.azure.com",
            "dev.azure.com:443",
            "dev.azure.com.",
            "dev.azure.com.evil",
        ] {
            assert_eq!(Host::parse(name), None, "{name}");
        }
    }

    #[test]
    fn an_older_name_is_an_organization_of_a_host() {
        for (name, expected) in [
            ("contoso.visualstudio.com", Some((Host::DevAzure, "contoso"))),
            ("Contoso.VisualStudio.com", Some((Host::DevAzure, "Contoso"))),
            ("contoso.pkgs.visualstudio.com", Some((Host::Pkgs, "contoso"))),
            ("contoso.vsrm.visualstudio.com", Some((Host::Vsrm, "contoso"))),
            ("contoso.evil.visualstudio.com", None),
            ("a.b.pkgs.visualstudio.com", None),
            ("app.vssps.visualstudio.com", None),
            ("marketplace.visualstudio.com", None),
            ("pkgs.visualstudio.com", None),
            (".visualstudio.com", None),
            ("visualstudio.com", None),
            ("-a.visualstudio.com", None),
            ("contoso.visualstudio.com.evil", None),
            ("evilvisualstudio.com", None),
            ("é.visualstudio.com", None),
        ] {
            assert_eq!(Host::legacy(name), expected, "{name}");
        }
    }
}
