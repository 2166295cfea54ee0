moonpool::define_interface! {
    pub Twice, id 7, { call: u64 => u64, call: String => String }
}

fn main() {}
