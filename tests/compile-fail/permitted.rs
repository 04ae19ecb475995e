//! E0451: a permission is made by the policy alone.
use patgate::policy::Permitted;

fn forge<T>() -> T {
    unimplemented!("this is only compiled")
}

fn main() {
    let _ = Permitted { known: forge(), rule: forge(), credentials: forge() };
}
