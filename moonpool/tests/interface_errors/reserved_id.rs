moonpool::define_interface! {
    pub Reserved, id u64::MAX, { call: u64 => u64 }
}

fn main() {}
