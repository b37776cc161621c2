"""The names of a conversation's `/commands` and what each does, for `/help`, completion and the manual. Data only."""

SLASH_COMMANDS: dict[str, str] = {
    "/bye": "end the conversation (so does Ctrl-D after `chat`)",
    "/detach": "leave it running; `attach PID` comes back",
    "/undo": "take back the last message and its answer",
    "/retry": "have the last message answered anew",
    "/clear": "begin anew, with the same settings and system prompt",
    "/system": 'TEXT: replace the system prompt ("" removes it); alone: show it',
    "/model": "MODEL: go on with another model; alone: name the present one",
    "/attach": "FILE: send a text file along with the next message",
    "/set": "KEY VALUE: change a setting from the next message on (also: raw on|off)",
    "/show": "show process, context and settings; `/show transcript`: what was said",
    "/save": "NAME: keep the conversation; FILE.txt: write it for people",
    "/load": "NAME: replace the conversation by a saved one; alone: list them",
    "/fork": "copy it into a process of its own",
    "/help": "this list",
}
