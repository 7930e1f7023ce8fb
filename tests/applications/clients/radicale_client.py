"""A calendar client: makes a calendar, adds, finds, changes and removes an event."""

import json
import sys
from datetime import UTC, datetime

import caldav

EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//tests//
BEGIN:VEVENT
UID:meeting@tests
DTSTAMP:20300101T000000Z
DTSTART:20300105T090000Z
DTEND:20300105T100000Z
RRULE:FREQ=WEEKLY;COUNT=3
SUMMARY:Réunion
END:VEVENT
END:VCALENDAR
"""
found = {}
with caldav.DAVClient(sys.argv[1], username="user", password="secret") as client:
    home = client.principal()
    found["before"] = len(home.calendars())
    calendar = home.make_calendar(name="Work")
    calendar.save_event(EVENT)
    event = calendar.event_by_uid("meeting@tests")
    found["summary"] = str(event.icalendar_component["SUMMARY"])
    dates = {"start": datetime(2030, 1, 1, tzinfo=UTC), "end": datetime(2030, 2, 1, tzinfo=UTC)}
    found["occurrences"] = len(calendar.search(**dates, event=True, expand=True))
    event.icalendar_component["SUMMARY"] = "Moved"
    event.save()
    found["changed"] = str(calendar.event_by_uid("meeting@tests").icalendar_component["SUMMARY"])
    token = calendar.objects_by_sync_token().sync_token
    for number in range(50):
        calendar.save_event(EVENT.replace("meeting@", f"{number}@"))
    found["synchronised"] = len(list(calendar.objects_by_sync_token(token)))
    event.delete()
    found["left"] = len(calendar.events())
    calendar.delete()
    found["after"] = len(home.calendars())
print(json.dumps(found))
