pub struct Plain;

moonpool::define_interface! {
    pub Service, id 7, { call: Plain => u64 }
}

fn main() {}
