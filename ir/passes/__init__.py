"""The passes, one file a pass; `mapsto.ir.pipeline` imports, and so registers, all of them."""
