//! E0451: a request with its secret is made by the vault alone.
use patgate::vault::Armed;

fn forge<T>() -> T {
    unimplemented!("this is only compiled")
}

fn main() {
    let _ = Armed { recorded: forge(), token: forge() };
}
