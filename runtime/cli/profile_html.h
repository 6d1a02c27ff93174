/* The parts of the profile's page: text, and charts as SVG. Colours and type are classes of profile_page.html. */
#ifndef MK_CLI_PROFILE_HTML_H
#define MK_CLI_PROFILE_HTML_H

#include "runtime/cli/html.h"
#include "runtime/cli/profile.h"

/* What the pointer shows over a group's mark: `<title>name; ...</title>`. */
void mk_html_group_title(const mk_profile *p, const mk_profile_row *r, mk_text *out);

/* The step's time as two bars, one piece per kind and one per group. */
void mk_svg_bars(const mk_profile *p, mk_text *out);
/* One dot per group with arithmetic: operations per byte against operations per second, below the card's limits. */
void mk_svg_roofline(const mk_profile *p, mk_text *out);

#endif
