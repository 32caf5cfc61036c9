"""`psgpo inspect`: responses line by line, on one page that needs nothing but a browser.

`source` reads a run directory or a file of labels or samples, `completions` finds what the search drew, `exact` asks
the embedded benchmark's oracle about evaluation samples, `evidence` says what models add and `scoring` (with its
`credit` the only module that loads torch) asks them, `assemble` turns all of it into the page's data (`model`), `page`
writes the file. templates/inspect.js draws the response that is chosen, and only that.
"""
