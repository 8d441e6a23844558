"""The report of a backtest as one page of HTML that needs nothing but a browser. Pure: material in, text out.

`material` reads what jobs left, `series` makes curves drawable, `charts` says what is drawn, `sections` and `page` what stands where.
Nothing here computes a figure of a backtest anew, but for the returns of months: what is shown is what the jobs returned.
"""
