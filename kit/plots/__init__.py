"""Numbers in, figure out: `x_info(...)` gathers the numbers, `x_figure(info)` draws them, `style` says how."""
