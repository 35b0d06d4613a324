"""Start of the agent, here and as the bundle's own __main__.py: `python3 -I DIRECTORY run|dial|hello|version`."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == [
        "dial"
    ]:  # started for every connection of some controllers: it loads nothing else of the agent
        import os

        from nodeagent import dial

        user = os.geteuid()
        sys.exit(dial.main(sys.argv[2:], f"/run/user/{user}/sshoal/agent.sock" if user else "/run/sshoal/agent.sock"))
    from nodeagent import main

    sys.exit(main.main(sys.argv[1:]))
