/* The order of groups, kept valid while groups merge: two may merge if nothing must run between them. */
#include "codegen/group_internal.h"

#include <string.h>

/* Marks everything that depends on cluster c and stands before `end` in the order; returns false on meeting cluster `not_this`
 * other than directly from `start`. */
static bool mark_later(mk_grouping *gr, int c, int start, int end, int not_this) {
  const mk_flow *f = gr->f;
  const mk_cluster *cl = &gr->clusters[c];
  for (int i = 0; i < cl->nmembers; i++) {
    int u = cl->members[i].unit;
    for (int j = f->first_user[u]; j < f->first_user[u + 1]; j++) {
      int next = gr->cluster_of[f->users[j]];
      if (next < 0 || next == c) continue;
      mk_cluster *n = &gr->clusters[next];
      if (next == not_this) {
        if (c != start) return false;
        continue;
      }
      if (n->place >= end || n->stamp == gr->stamp) continue;
      n->stamp = gr->stamp;
      if (!mark_later(gr, next, start, end, not_this)) return false;
    }
  }
  return true;
}

bool mk_order_join(mk_grouping *gr, int a, int b) {
  if (gr->clusters[a].place > gr->clusters[b].place) {
    int t = a;
    a = b;
    b = t;
  }
  int from = gr->clusters[a].place, to = gr->clusters[b].place;
  gr->stamp++;
  if (!mark_later(gr, a, a, to, b)) return false;
  /* What does not depend on a moves before it; then a and b; then what does. */
  int *later = gr->scratch, nlater = 0, at = 0;
  for (int i = from; i <= to; i++) {
    int c = gr->order[i];
    if (c == a || c == b) continue;
    if (gr->clusters[c].stamp == gr->stamp)
      later[nlater++] = c;
    else
      gr->order[from + at++] = c;
  }
  gr->order[from + at++] = a;
  gr->order[from + at++] = b;
  memcpy(gr->order + from + at, later, sizeof *later * (size_t)nlater);
  for (int i = from; i <= to; i++) gr->clusters[gr->order[i]].place = i;
  return true;
}
